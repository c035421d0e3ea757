// What a captured stream must be able to do.

import { once } from "node:events";
import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import type net from "node:net";
import { expect, it } from "vitest";
import * as linux from "@ambit/common/sys/constants.ts";
import { addressOf, callNumber, closeFd } from "@ambit/common/sys/libc.ts";
import { socketFd } from "@ambit/common/sys/sockets.ts";
import { connectApp, connectFd, openAppSocket, setOption } from "../app-socket.ts";
import { sendTo } from "../raw-packets.ts";
import type { RedirectionHarness } from "../redirection-harness.ts";
import type { TestServer } from "../test-network.ts";
import { OUTSIDE } from "../test-network.ts";

const SO_LINGER = 13;
const SO_OOBINLINE = 10;
const MSG_OOB = 1;
const FIONREAD = 0x541b;
/** Calls that have another number on each kind of machine. */
const SYSTEM_CALLS =
  process.arch === "x64" ? { sendfile: 40, ioctl: 16 } : { sendfile: 71, ioctl: 29 };

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

  it("carries an urgent byte in its place", async () => {
    const [app, proxy, server] = await pair();
    await using _ = server;
    setOption(socketFd(proxy), linux.SOL_SOCKET, SO_OOBINLINE, 1);
    const to = { ip: OUTSIDE.ip4, port: 80 };
    for (const [text, flags] of [
      ["a", 0],
      ["!", MSG_OOB],
      ["b", 0],
    ] as const) {
      sendTo(socketFd(app), to, Buffer.from(text), flags);
    }
    let arrived = "";
    while (arrived.length < 3) arrived += String((await once(proxy, "data"))[0]);
    expect(arrived).toBe("a!b");
    app.destroy();
  });

  it("says how many bytes wait (FIONREAD)", async () => {
    const { network, install, listen } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const fd = openAppSocket(network.pod, OUTSIDE.ip4);
    connectFd(fd, OUTSIDE.ip4, 80);
    const proxy = await ztunnel.next();
    proxy.write("ten bytes.");
    await expect.poll(() => waitingBytes(fd), { interval: 1 }).toBe(10);
    closeFd(fd);
  });

  it("carries what is sent by sendfile", async () => {
    const [app, proxy, server] = await pair();
    await using _ = server;
    const file = openSync(import.meta.filename, "r");
    const bytes = Math.min(fstatSync(file).size, 1_000);
    callNumber(SYSTEM_CALLS.sendfile, "sendfile", socketFd(app), file, 0, bytes);
    let arrived = "";
    while (arrived.length < bytes) arrived += String((await once(proxy, "data"))[0]);
    expect(arrived).toBe(readFileSync(import.meta.filename, "latin1").slice(0, bytes));
    closeSync(file);
    app.destroy();
  });
}

/** What FIONREAD says. */
function waitingBytes(fd: number): number {
  const count = Buffer.alloc(4);
  callNumber(SYSTEM_CALLS.ioctl, "ioctl", fd, FIONREAD, addressOf(count));
  return count.readInt32LE();
}
