// What a captured stream must be able to do.

import { once } from "node:events";
import type net from "node:net";
import { expect, it } from "vitest";
import * as linux from "@ambit/common/sys/constants.ts";
import { socketFd } from "@ambit/common/sys/sockets.ts";
import { connectApp, setOption } from "../app-socket.ts";
import type { RedirectionHarness } from "../redirection-harness.ts";
import type { TestServer } from "../test-network.ts";
import { OUTSIDE } from "../test-network.ts";

const SO_LINGER = 13;

export function streamCases(get: () => RedirectionHarness): void {
  const pair = async (): Promise<[net.Socket, net.Socket, AsyncDisposable]> => {
    const { network, install, listen } = get();
    await install();
    const ztunnel = await listen("OUTBOUND");
    const app = connectApp(network.pod, OUTSIDE.ip4, 80);
    return [app, await ztunnel.next(), ztunnel];
  };

  it.each([
    ["application", 0],
    ["ztunnel", 1],
  ] as const)("lets the %s end its half and read on", async (_who, index) => {
    const [app, proxy, server] = await pair();
    await using _ = server;
    const [ending, staying] = index === 0 ? [app, proxy] : [proxy, app];
    staying.resume();
    ending.resume();
    const ended = once(staying, "end");
    ending.end();
    await ended;
    const arrived = once(ending, "data");
    staying.write("after the end");
    expect(String((await arrived)[0])).toBe("after the end");
    app.destroy();
  });

  it.each([
    ["application", 0],
    ["ztunnel", 1],
  ] as const)("carries a reset by the %s", async (_who, index) => {
    const [app, proxy, server] = await pair();
    await using _ = server;
    const [resetting, other] = index === 0 ? [app, proxy] : [proxy, app];
    other.resume();
    const failed = once(other, "error");
    setOption(
      socketFd(resetting),
      linux.SOL_SOCKET,
      SO_LINGER,
      Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]),
    );
    resetting.destroy();
    expect((await failed)[0]).toMatchObject({ code: "ECONNRESET" });
    other.destroy();
  });

  it("lets the server speak first, and carries a connection without a byte", async () => {
    const [app, proxy, server] = await pair();
    await using _ = server;
    const greeting = once(app, "data");
    proxy.write("220 ready");
    expect(String((await greeting)[0])).toBe("220 ready");
    const { network } = get();
    const silent = connectApp(network.pod, OUTSIDE.ip4, 81);
    silent.end();
    const ended = await (server as TestServer).next();
    ended.resume();
    await once(ended, "end");
    silent.destroy();
    app.destroy();
  });
}
