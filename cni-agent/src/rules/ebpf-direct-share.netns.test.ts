// A pod's share of the direct connections that a node has room for: one pod cannot take all of it.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { CONSTANTS } from "@ambit/common/sys/bpf-layout.gen.ts";
import { FLOWS_OF_POD_MAX } from "@ambit/common/sys/bpf-direct.ts";
import * as linux from "@ambit/common/sys/constants.ts";
import { callRaw, closeFd } from "@ambit/common/sys/libc.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { connectApp, connectFd, openAppSocket, setOption } from "../testing/app-socket.ts";
import { APP_PORT, DirectLab } from "../testing/direct-lab.ts";
import { ALL, type EbpfHarness, ebpfHarness } from "../testing/redirection-harness.ts";
import { ip, talk, TestServer } from "../testing/test-network.ts";
import { PROXY_MARK } from "./wire.ts";

const TCP_FASTOPEN_CONNECT = 30;
const { FLOWS_AT_ONCE_MAX } = CONSTANTS;

let harness: EbpfHarness;
let lab: DirectLab;
beforeAll(() => {
  harness = ebpfHarness();
});
beforeEach(async () => {
  lab = await DirectLab.start(harness);
});
afterEach(async () => {
  harness.network.sh("ip netns exec $POD nft delete table inet attack 2>/dev/null || true");
  await lab[Symbol.asyncDispose]();
});
afterAll(() => harness.close());

const direct = () => harness.node.steering.direct;
const counted = () => direct().flowCount(lab.source.slot);

/** From now on the caller's SYNs are made, and get nowhere. */
function swallowSyns(): void {
  harness.network.sh(`ip netns exec $POD nft '
    add table inet attack
    add chain inet attack out { type filter hook output priority -150; }
    add rule inet attack out tcp dport ${APP_PORT} tcp flags syn meta mark and 0xfff != 0x111 drop'`);
}

function begin(prepare?: (fd: number) => void): number {
  const { ip: to, port } = lab.at();
  const fd = openAppSocket(lab.caller, to);
  prepare?.(fd);
  connectFd(fd, to, port);
  return fd;
}

/** Goes when the first byte is written. */
const holdBack = (fd: number) => setOption(fd, linux.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);

/** The called pod calls the calling one, as ztunnel lets it. */
async function allowTheOther(): Promise<AsyncDisposable & { call(): Promise<void> }> {
  const { pod, other } = harness.network;
  const { steering } = harness.node;
  const outbound = await TestServer.start(other, ip("::"), 0, PROXY_MARK);
  const app = await TestServer.start(pod, ip("::"), APP_PORT);
  steering.setListener(lab.slot, "OUTBOUND", outbound.fd);
  const { slot } = lab.source;
  const to = { ip: pod.ip4, port: APP_PORT };
  const backend = { to, slot, generation: direct().generation(slot), weight: 1 };
  const source = { netns: cookieOfNetns(other.netns.fd), slot: lab.slot };
  direct().allow(source, to, [backend]);
  return {
    async call() {
      const client = connectApp(other, to.ip, to.port);
      await talk(client, await app.next());
      client.destroy();
    },
    async [Symbol.asyncDispose]() {
      for (const server of [outbound, app]) await server[Symbol.asyncDispose]();
    },
  };
}

describe("a pod whose SYNs nobody answers", () => {
  it("takes its share; what it begins then goes to ztunnel, and other pods go on directly", async () => {
    lab.allow(lab.at());
    await using other = await allowTheOther();
    harness.network.sh("ip netns exec $POD sysctl -qw net.ipv4.tcp_fastopen=5");
    const held = Array.from({ length: 2 * FLOWS_AT_ONCE_MAX }, () => begin(holdBack));
    swallowSyns();
    const sockets = Array.from({ length: FLOWS_OF_POD_MAX }, () => begin());
    expect([counted(), direct().flows().length]).toEqual([FLOWS_OF_POD_MAX, FLOWS_OF_POD_MAX]);

    const { generation } = lab.current();
    const before = lab.counted("DIRECT_POD_FULL");
    const client = lab.call(lab.at());
    await talk(client, await lab.outbound.next());
    expect(lab.counted("DIRECT_POD_FULL") - before).toBe(1);
    expect(lab.current().generation).toBe(generation);

    for (const fd of held) callRaw("write", fd, Buffer.from("hello"), 5);
    expect(counted()).toBe(FLOWS_OF_POD_MAX + FLOWS_AT_ONCE_MAX);

    await other.call();
    expect(lab.counted("DIRECT_INSERT_FAILED")).toBe(0);

    for (const fd of [...sockets, ...held]) closeFd(fd);
    client.destroy();
    await expect.poll(counted).toBe(0);
  });
});

describe("a pod's share", () => {
  it.each([
    ["a connection has ended", false],
    ["a client has given up", true],
  ])("is given back when %s", async (_, isLost) => {
    lab.allow(lab.at());
    if (isLost) swallowSyns();
    const client = lab.call(lab.at());
    const served = isLost ? undefined : await lab.app.next();
    expect(counted()).toBe(1);
    client.destroy();
    served?.destroy();
    await expect.poll(counted).toBe(0);
  });

  it("is given back by user space, too, which forgets what nobody closed", () => {
    lab.allow(lab.at());
    swallowSyns();
    const fds = [begin(), begin(), begin()];
    const [first, second] = direct().flows();
    expect(direct().forget(first!)).toBe(true);
    expect(direct().forget(first!)).toBe(false);
    expect(counted()).toBe(2);
    expect(direct().forget({ ...second!, netns: 1n })).toBe(true);
    expect(counted()).toBe(2);
    for (const fd of fds) closeFd(fd);
  });

  it("is the pod's as long as it has its slot, and its successor's begins anew", async () => {
    lab.allow(lab.at());
    swallowSyns();
    const fd = begin();
    const { netns } = lab.caller;
    await harness.backend.install(netns, { ...ALL, dnsCapture: false });
    expect(counted()).toBe(1);
    const { steering } = harness.node;
    const { slot } = lab.source;
    steering.release(lab.source.netns);
    steering.enrol(12_345n, slot);
    expect(counted()).toBe(0);
    closeFd(fd);
    expect(counted()).toBe(0);
    steering.release(12_345n);
    steering.enrol(lab.source.netns, slot);
  });
});
