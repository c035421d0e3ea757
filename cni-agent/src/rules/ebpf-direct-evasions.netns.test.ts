// Ways of making a connection that might not run through the programs, or not as connect() does: none of them
// reaches an application without a verdict for it, and what has one is entered like any other. The pod has
// NET_ADMIN and NET_RAW, and may make cgroups and network namespaces of its own.

import { mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import * as linux from "@ambit/common/sys/constants.ts";
import { call, closeFd } from "@ambit/common/sys/libc.ts";
import { openNetns } from "@ambit/common/sys/netns.ts";
import { destroyConnections, tcpConnections } from "@ambit/common/sys/sock-diag.ts";
import {
  type AppSocketOptions,
  bindTo,
  bindToDevice,
  connectFd,
  MPTCP,
  openAppSocket,
  setOption,
} from "../testing/app-socket.ts";
import { APP_PORT, DirectLab } from "../testing/direct-lab.ts";
import { connectByRing } from "../testing/io-uring.ts";
import { MSG_FASTOPEN, sendSyn, sendTo } from "../testing/raw-packets.ts";
import { type EbpfHarness, ebpfHarness } from "../testing/redirection-harness.ts";
import { ip, talk, type TestPlace, TestServer } from "../testing/test-network.ts";

const TCP_REPAIR = 19;
const IP_TOS = 1;
const SO_BINDTODEVICE = 25;
const VIP = { ip: ip("10.96.7.7"), port: 80 };
/** The kernel's own thread makes a multipath connection's further paths. */
const WORKER = { timeout: 10_000 };
/** In use by no other test: half-open connections of the one before may still be there. */
let clientPort = 41_404;

let harness: EbpfHarness;
let lab: DirectLab;
let cleanups: (() => void)[];
beforeAll(() => {
  harness = ebpfHarness();
  harness.network.sh("ip netns exec $POD sysctl -qw net.ipv4.tcp_fastopen=5");
});
beforeEach(async () => {
  clientPort++;
  cleanups = [];
  lab = await DirectLab.start(harness);
});
afterEach(async () => {
  for (const cleanup of cleanups.reverse()) cleanup();
  await lab[Symbol.asyncDispose]();
});
afterAll(() => harness.close());

const direct = () => harness.node.steering.direct;
const hello = Buffer.from("hello");

/** A socket of the calling pod that is closed after the test. */
function open(options: AppSocketOptions = {}, place: TestPlace = lab.caller): number {
  const fd = openAppSocket(place, lab.at().ip, options);
  cleanups.push(() => closeFd(fd));
  return fd;
}

function connected(fd: number, to: SocketAddress, mapped = false): void {
  connectFd(fd, to.ip, to.port, mapped);
}

function fastOpen(options: AppSocketOptions, to: SocketAddress): void {
  sendTo(open(options), to, hello, MSG_FASTOPEN);
}

/** Runs `action` in a cgroup made for it. */
function inCgroup<T>(folder: string, action: () => T): T {
  mkdirSync(folder);
  cleanups.push(() => rmdirSync(folder));
  using _ = harness.cgroups.enter(folder);
  return action();
}

const below = () => join(harness.cgroups.apps, "own");
const outside = () => `${harness.cgroups.node}-outside`;

/** A namespace that the pod has made, whose packets leave with the pod's address. */
function namespaceBehind(): TestPlace {
  harness.network.sh(`
    ip netns add $POD-behind
    ip -n $POD link add behind type veth peer name eth0 netns $POD-behind
    ip -n $POD addr add 10.79.0.1/24 dev behind; ip -n $POD link set behind up
    ip -n $POD-behind addr add 10.79.0.2/24 dev eth0; ip -n $POD-behind link set eth0 up
    ip -n $POD-behind route add default via 10.79.0.1
    ip netns exec $POD sysctl -qw net.ipv4.ip_forward=1
    ip netns exec $POD nft '
      add table ip behind
      add chain ip behind out { type nat hook postrouting priority 100; }
      add rule ip behind out ip saddr 10.79.0.2 masquerade'`);
  const path = `${lab.caller.path}-behind`;
  const netns = openNetns(path);
  cleanups.push(() => {
    netns.close();
    harness.network.sh(`
      ip netns exec $POD nft delete table ip behind
      # At once: with its namespace it goes some time later.
      ip -n $POD link del behind
      ip netns del $POD-behind`);
  });
  return { path, netns, ip4: ip("10.79.0.2"), ip6: ip("fd79::2") };
}

/** Ways to connect to an address; what is expected of them depends on the verdict. */
const WAYS: [string, (to: SocketAddress) => unknown][] = [
  ["data with the SYN (MSG_FASTOPEN)", (to) => fastOpen({}, to)],
  ["data with the SYN of an MPTCP socket", (to) => fastOpen({ protocol: MPTCP }, to)],
  ["an IPv4-mapped address", (to) => connected(open({ mapped: true }), to, true)],
  [
    "a socket bound to the device",
    (to) => {
      const fd = open();
      bindToDevice(fd);
      connected(fd, to);
    },
  ],
  [
    "a type of service of its own",
    (to) => {
      const fd = open();
      setOption(fd, linux.SOL_IP, IP_TOS, 0x10);
      connected(fd, to);
    },
  ],
  ["a connection by io_uring, made by the kernel", (to) => connectByRing(open(), to)],
  ["a cgroup of its own", (to) => inCgroup(below(), () => connected(open(), to))],
  [
    "a socket handed to a process outside of the node's cgroup",
    (to) => {
      const fd = open();
      inCgroup(outside(), () => connected(fd, to));
    },
  ],
];

describe.each(["no verdict", "a verdict for another port"])("with %s", (verdict) => {
  beforeEach(() => {
    if (verdict !== "no verdict") lab.allow({ ...lab.at(), port: APP_PORT + 1 });
  });
  afterEach(() => {
    expect(lab.app.connectionCount).toBe(0);
    expect(direct().flows()).toEqual([]);
  });
  const plaintext = () => lab.counted("TO_PLAINTEXT");

  it.each(WAYS)("%s leads to ztunnel, with the destination as it was", async (_, way) => {
    await way(lab.at());
    expect(harness.destinationOf(await lab.outbound.next())).toEqual(lab.at());
  });

  it("a socket that was made outside of the node's cgroup reaches the other side's ztunnel", async () => {
    connected(
      inCgroup(outside(), () => open()),
      lab.at(),
    );
    await lab.plaintext.next();
  });

  it("a namespace behind the pod's reaches the other side's ztunnel", async () => {
    connected(open({}, namespaceBehind()), lab.at());
    await lab.plaintext.next();
  });

  it("the other pod's link-local address leads to its ztunnel", async () => {
    harness.network.sh(`
      ip -n $POD link add side type veth peer name side netns $OTHER
      ip -n $POD link set side up; ip -n $OTHER link set side up
      ip -n $OTHER addr add fe80::77/64 dev side nodad`);
    cleanups.push(() => harness.network.sh("ip -n $POD link del side"));
    const fd = openAppSocket(lab.caller, ip("fe80::77"));
    cleanups.push(() => closeFd(fd));
    setOption(fd, linux.SOL_SOCKET, SO_BINDTODEVICE, Buffer.from("side\0"));
    connectFd(fd, ip("fe80::77"), APP_PORT);
    await lab.plaintext.next();
  });

  it.each([
    ["the pod's own address", () => lab.caller.ip4],
    ["the address of another pod", () => ip("10.77.1.99")],
  ])("a SYN made by hand, from %s, reaches the other side's ztunnel", async (_, source) => {
    const before = plaintext();
    sendSyn(lab.caller, { ip: source(), port: clientPort }, lab.at());
    await expect.poll(plaintext).toBeGreaterThan(before);
  });

  it("a captured socket that loses its mark talks to nobody", async () => {
    const fd = open();
    connected(fd, lab.at());
    const captured = await lab.outbound.next();
    const before = plaintext();
    setOption(fd, linux.SOL_SOCKET, linux.SO_MARK, 0);
    call("write", "", fd, hello, hello.length);
    await expect.poll(plaintext).toBeGreaterThan(before);
    expect(lab.plaintext.connectionCount).toBe(0);
    expect(captured.bytesRead).toBe(0);
  });

  it("a connection that was never made (TCP_REPAIR) talks to nobody", async () => {
    const fd = open();
    setOption(fd, linux.IPPROTO_TCP, TCP_REPAIR, 1);
    bindTo(fd, lab.caller.ip4, clientPort);
    connected(fd, lab.at());
    setOption(fd, linux.SOL_SOCKET, linux.SO_MARK, 0);
    const before = plaintext();
    // What it sends at once, to hear of the other side's window.
    setOption(fd, linux.IPPROTO_TCP, TCP_REPAIR, 0);
    await expect.poll(plaintext).toBeGreaterThan(before);
    expect(lab.plaintext.connectionCount).toBe(0);
  });
});

describe("with a verdict", () => {
  it.each(WAYS)("%s leads to the application, and is entered", async (_, way) => {
    lab.allow(VIP, lab.at());
    await way(VIP);
    await lab.app.next();
    const [flow, ...more] = direct().flows();
    expect(flow).toMatchObject({ service: VIP, destination: lab.at(), accepted: true });
    expect(more).toEqual([]);
    expect(lab.outbound.connectionCount + lab.plaintext.connectionCount).toBe(0);
  });

  it.each([
    [
      "a socket that was made outside of the node's cgroup",
      () => inCgroup(outside(), () => open()),
    ],
    ["a namespace behind the pod's", () => open({}, namespaceBehind())],
  ])("%s has no part in it", async (_, make) => {
    lab.allow(lab.at());
    connected(make(), lab.at());
    await lab.plaintext.next();
    expect(direct().flows()).toEqual([]);
    expect(lab.app.connectionCount).toBe(0);
  });
});

describe("a multipath connection", () => {
  it("ends with its verdict, and finds no second path", async () => {
    const fd = open({ protocol: MPTCP }, harness.network.other);
    bindTo(fd, lab.at().ip, APP_PORT + 1);
    call("listen", "", fd, 1);
    await using server = await TestServer.adopt(fd);
    const to = lab.at(4, APP_PORT + 1);
    lab.allow(to);
    const client = lab.call(to, { protocol: MPTCP });
    const served = await server.next();
    await talk(client, served);
    const there = harness.network.other.netns.fd;
    const subflows = () => tcpConnections(there).filter(({ local }) => local.port === to.port);
    expect(subflows()).toHaveLength(1);
    const steered = () => lab.counted("TO_OUTBOUND") + lab.counted("TO_PLAINTEXT");
    const before = steered();
    direct().revoke(lab.slot);
    harness.network.sh(`
      ip netns exec $POD ip mptcp limits set subflows 4
      ip -n $POD addr add 10.77.1.3/24 dev eth0
      ip netns exec $POD ip mptcp endpoint add 10.77.1.3 subflow`);
    cleanups.push(() =>
      harness.network.sh(`
        ip netns exec $POD ip mptcp endpoint flush
        ip -n $POD addr del 10.77.1.3/24 dev eth0`),
    );
    // It does not get to be a connection: ztunnel's listeners know of no other paths.
    await expect.poll(steered, WORKER).toBeGreaterThan(before);
    expect(subflows()).toHaveLength(1);
    destroyConnections(there, subflows());
    await expect.poll(() => direct().flows()).toEqual([]);
    const { bytesRead } = served;
    client.write("more");
    await expect.poll(subflows).toEqual([]);
    expect(served.bytesRead).toBe(bytesRead);
    client.destroy();
  });
});
