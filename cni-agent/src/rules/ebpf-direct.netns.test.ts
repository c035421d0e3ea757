// The direct path in the kernel: two enrolled pods, the test as ztunnel that writes verdicts.

import { once } from "node:events";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { parseIp } from "@ambit/common/net/ip.ts";
import type { EndedFlow, EndedFlows } from "@ambit/common/sys/bpf-direct-ended.ts";
import * as linux from "@ambit/common/sys/constants.ts";
import {
  bindToDevice,
  connectFd,
  disconnectFd,
  MPTCP,
  openAppSocket,
  setOption,
  wrap,
} from "../testing/app-socket.ts";
import { APP_PORT, DirectLab } from "../testing/direct-lab.ts";
import { type EbpfHarness, ebpfHarness } from "../testing/redirection-harness.ts";
import { dial, ip, talk, TestServer } from "../testing/test-network.ts";

let harness: EbpfHarness;
let lab: DirectLab;
beforeAll(() => {
  harness = ebpfHarness();
});
beforeEach(async () => {
  lab = await DirectLab.start(harness);
});
afterEach(() => lab[Symbol.asyncDispose]());
afterAll(() => harness.close());

const direct = () => harness.node.steering.direct;
/** A quarter of them is far from a sixteenth and from a half. */
const CALLS = 128;
const VIP = { 4: { ip: ip("10.96.7.7"), port: 80 }, 6: { ip: ip("fd96::7"), port: 80 } } as const;

const markIt = (fd: number) => setOption(fd, linux.SOL_SOCKET, linux.SO_MARK, 0x70000);

describe("without a verdict", () => {
  it("a pod's call goes to ztunnel with the destination it wrote", async () => {
    const client = lab.call(lab.at());
    const captured = await lab.outbound.next();
    expect(harness.destinationOf(captured)).toEqual(lab.at());
    await talk(client, captured);
    expect(direct().flows()).toEqual([]);
    client.destroy();
  });

  it.each(["another port", "another service", "another source", "another pod's slot"])(
    "%s is none",
    async (what) => {
      const { other } = harness.network;
      if (what === "another port") lab.allow({ ...lab.at(), port: APP_PORT + 1 });
      if (what === "another service") lab.allow(VIP[4], lab.at());
      const backend = { to: lab.at(), ...lab.current(), weight: 1 };
      if (what === "another source")
        direct().allow({ ...lab.source, netns: 12_345n }, lab.at(), [backend]);
      if (what === "another pod's slot")
        direct().allow({ ...lab.source, slot: lab.slot }, lab.at(), [backend]);
      const client = lab.call({ ip: other.ip4, port: APP_PORT });
      await talk(client, await lab.outbound.next());
      client.destroy();
    },
  );
});

describe("with a verdict", () => {
  it.each([
    ["IPv4", 4, {}],
    ["IPv6", 6, {}],
    ["IPv4-mapped", 4, { mapped: true }],
    ["MPTCP", 4, { protocol: MPTCP }],
    ["MPTCP over IPv6", 6, { protocol: MPTCP }],
    ["bound to a device", 4, { prepare: bindToDevice }],
    ["with a mark of the application's", 4, { prepare: markIt }],
  ] as const)("an application talks to the other: %s", async (_, family, options) => {
    const at = lab.at(family);
    lab.allow(at);
    const client = lab.call(at, options);
    const served = await lab.app.next();
    await talk(client, served);
    expect(parseIp(client.remoteAddress!)).toEqual(at.ip);
    expect(lab.outbound.connectionCount + lab.plaintext.connectionCount).toBe(0);
    expect(direct().flows()).toMatchObject([
      {
        source: { ip: family === 4 ? lab.caller.ip4 : lab.caller.ip6, port: client.localPort },
        destination: at,
        service: undefined,
        netns: lab.source.netns,
        slot: lab.slot,
        accepted: true,
      },
    ]);
    client.destroy();
    served.destroy();
    await expect.poll(() => direct().flows()).toEqual([]);
  });

  it.each([
    ["IPv4", 4, {}],
    ["IPv6", 6, {}],
    ["IPv4-mapped", 4, { mapped: true }],
    ["bound to a device", 4, { prepare: bindToDevice }],
  ] as const)("a service's address stays what the client sees: %s", async (_, family, options) => {
    const vip = VIP[family];
    lab.allow(vip, lab.at(family));
    const client = lab.call(vip, options);
    const served = await lab.app.next();
    await talk(client, served);
    expect(parseIp(client.remoteAddress!)).toEqual(vip.ip);
    expect(client.remotePort).toBe(vip.port);
    expect(served.localPort).toBe(APP_PORT);
    expect(direct().flows()).toMatchObject([{ destination: lab.at(family), service: vip }]);
    client.destroy();
  });

  it("an MPTCP socket calls a service, too, and sees who it is: its storage is its subflow's", async () => {
    lab.allow(VIP[4], lab.at());
    const client = lab.call(VIP[4], { protocol: MPTCP });
    await talk(client, await lab.app.next());
    expect(client.remoteAddress).toBe(lab.at().ip);
    client.destroy();
  });

  it("spreads the calls over the backends by their weight", async () => {
    const backend = (port: number, weight: number) => ({
      to: lab.at(4, port),
      ...lab.current(),
      weight,
    });
    direct().allow(lab.source, VIP[4], [backend(APP_PORT, 3), backend(APP_PORT + 1, 1)]);
    await using second = await TestServer.start(harness.network.other, ip("::"), APP_PORT + 1);
    for (let i = 0; i < CALLS; i++) {
      (await dial(lab.caller, VIP[4].ip, VIP[4].port)).destroy();
    }
    await expect.poll(() => lab.app.connectionCount + second.connectionCount).toBe(CALLS);
    expect(second.connectionCount).toBeGreaterThan(CALLS / 16);
    expect(lab.app.connectionCount).toBeGreaterThan(CALLS / 2);
    expect(lab.outbound.connectionCount).toBe(0);
  });

  it("a port where nobody listens is refused at once and leaves nothing", async () => {
    const at = lab.at(4, APP_PORT + 1);
    lab.allow(at);
    const refused = dial(lab.caller, at.ip, at.port);
    await expect(refused).rejects.toMatchObject({ code: "ECONNREFUSED" });
    await expect.poll(() => direct().flows()).toEqual([]);
  });

  it("nothing goes past a ztunnel that is gone", () => {
    lab.allow(lab.at());
    harness.node.steering.renewLease(-1_000);
    expect(() => lab.call(lab.at())).toThrow("EPERM");
    harness.node.steering.renewLease(0);
  });
});

describe("a revocation", () => {
  it("comes with the destination's leaving the mesh, before its slot is anybody else's", async () => {
    lab.allow(lab.at());
    harness.node.steering.release(cookieOfNetns(harness.network.other.netns.fd));
    const client = lab.call(lab.at());
    await talk(client, await lab.outbound.next());
    client.destroy();
  });

  it("has the very next call captured", async () => {
    lab.allow(lab.at());
    direct().revoke(lab.slot);
    const client = lab.call(lab.at());
    await talk(client, await lab.outbound.next());
    client.destroy();
  });

  it("of one verdict leaves the others", async () => {
    lab.allow(lab.at());
    lab.allow(VIP[4], lab.at());
    expect(direct().withdraw(lab.source.netns, VIP[4])).toBe(true);
    expect(direct().withdraw(lab.source.netns, VIP[4])).toBe(false);
    const client = lab.call(lab.at());
    await talk(client, await lab.app.next());
    client.destroy();
  });
});

describe("what a direct connection carried", () => {
  /** The records since the last call. */
  const ended = () => {
    const records: EndedFlow[] = [];
    ring.read(({ flow, cookie, between, endedNs, aborted, bytesReceived, bytesSent }) => {
      records.push({ flow, cookie, between, endedNs, aborted, bytesReceived, bytesSent });
    });
    return records;
  };
  let ring: EndedFlows;
  beforeEach(() => {
    ring = harness.node.steering.openEndedFlows();
    ended();
  });
  afterEach(() => ring[Symbol.dispose]());

  it.each([
    ["the client closes first", "client"],
    ["the server closes first", "server"],
    ["the client resets", "reset"],
  ] as const)("is told when it has ended: %s", async (_, how) => {
    lab.allow(VIP[4], lab.at());
    const client = lab.call(VIP[4]);
    const served = await lab.app.next();
    const source = { ip: lab.caller.ip4, port: client.localPort };
    await talk(client, served);
    expect(ended()).toEqual([]);
    if (how === "reset") client.resetAndDestroy();
    else {
      const [first, second] = how === "client" ? [client, served] : [served, client];
      first.end();
      await once(second, "end");
      second.end();
    }
    const records: EndedFlow[] = [];
    await expect.poll(() => records.push(...ended())).toBe(1);
    const [record] = records;
    expect(record).toMatchObject({
      flow: {
        source,
        destination: lab.at(),
        service: VIP[4],
        netns: lab.source.netns,
        slot: lab.slot,
      },
      bytesSent: 4,
    });
    // A FIN may be counted as a byte where the server closed first.
    expect(record!.bytesReceived - 4).toBeLessThanOrEqual(how === "server" ? 1 : 0);
    expect(record!.endedNs).toBeGreaterThan(record!.flow.startedNs);
    expect(direct().flows()).toEqual([]);
    client.destroy();
    served.destroy();
  });

  it("is told for every one of many", async () => {
    lab.allow(lab.at());
    const at = lab.at();
    let told = 0;
    for (let i = 0; i < 60; i++) {
      const batch = await Promise.all(
        Array.from({ length: 20 }, () => dial(lab.caller, at.ip, at.port)),
      );
      for (const socket of batch) socket.resetAndDestroy();
      told += ended().length;
    }
    await expect.poll(() => (told += ended().length)).toBe(1200);
    expect(lab.counted("DIRECT_UNREPORTED")).toBe(0);
  });
});

it("a socket that connects again shows what it called last", async () => {
  lab.allow(VIP[4], lab.at());
  const fd = openAppSocket(lab.caller, VIP[4].ip);
  connectFd(fd, VIP[4].ip, VIP[4].port);
  await lab.app.next();
  disconnectFd(fd);
  connectFd(fd, ip("10.78.0.9"), 80);
  const client = wrap(fd);
  await talk(client, await lab.outbound.next());
  expect(client.remoteAddress).toBe("10.78.0.9");
  client.destroy();
});
