// Direct connections that go from link to link: what the node's network sees of them, and what it decides.

import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import type net from "node:net";
import { constants as os } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { pinFolder } from "@ambit/common/sys/bpf-steering.ts";
import { openNetns } from "@ambit/common/sys/netns.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { APP_PORT, DirectLab } from "../testing/direct-lab.ts";
import {
  ALL,
  type EbpfHarness,
  ebpfHarness,
  openShortcut,
} from "../testing/redirection-harness.ts";
import { dial, ip, talk } from "../testing/test-network.ts";
import { sendSegment, TCP_FLAG } from "../testing/raw-packets.ts";
import { EbpfBackend } from "./ebpf-backend.ts";
import { EbpfNode } from "./ebpf-node.ts";
import { openRemains, podPin } from "./ebpf-remains.ts";
import { NftablesBackend } from "./nftables-backend.ts";
import { SwitchingBackend } from "./switching-backend.ts";

/** Of bpf(2), and of its command that asks what is attached. */
const BPF_NUMBER = { x64: 321, arm64: 280 }[process.arch as "x64" | "arm64"];
const PROG_QUERY = 16;

let harness: EbpfHarness;
let lab: DirectLab;
beforeAll(() => {
  harness = ebpfHarness();
});
beforeEach(async () => {
  lab = await DirectLab.start(harness);
  lab.allow(lab.at());
  lab.allow(lab.at(6));
});
afterEach(async () => {
  sh("ip netns exec $NODE nft delete table inet watch 2>/dev/null || true");
  await lab[Symbol.asyncDispose]();
  harness.node.collectGarbage();
  expect(harness.node.pins.names("shortcuts")).toEqual([]);
});
afterAll(() => harness.close());

const sh = (script: string) => harness.network.sh(script);
const flows = () => harness.node.steering.direct.flows();
const shortcuts = () => Object.fromEntries(harness.node.shortcuts.counts());
/** More than conntrack lets pass that has not seen what came before. */
const MUCH = Buffer.alloc(4 << 20, "much");

/** The node tracks connections, and refuses what belongs to none, as kube-proxy has it. */
function trackConnections(): void {
  sh(`ip netns exec $NODE nft '
    add table inet watch
    add counter inet watch begins
    add counter inet watch others
    add chain inet watch forward { type filter hook forward priority 0; }
    add rule inet watch forward ct state invalid drop
    add rule inet watch forward tcp flags & (syn | ack) == syn counter name begins accept
    add rule inet watch forward meta l4proto tcp counter name others'`);
}

/** Packets between the pods that the node's network has seen. */
function seen() {
  const count = (name: string) =>
    Number(/packets (\d+)/.exec(sh(`ip netns exec $NODE nft list counter inet watch ${name}`))![1]);
  return { begins: count("begins"), others: count("others") };
}

/** A third pod of the node, which does what it likes. */
function addPod() {
  const name = `ambit-test-${process.pid}-third`;
  sh(`ip netns add ${name}; ip -n ${name} link set lo up
    ip -n $NODE link add v3 type veth peer name eth0 netns ${name}; ip -n $NODE link set v3 up
    ip -n $NODE addr add 10.77.3.1/24 dev v3
    ip -n ${name} link set eth0 up; ip -n ${name} addr add 10.77.3.2/24 dev eth0
    ip -n ${name} route add default via 10.77.3.1`);
  const path = `/run/netns/${name}`;
  const netns = openNetns(path);
  return {
    path,
    netns,
    ip4: ip("10.77.3.2"),
    ip6: ip("fd77:3::2"),
    [Symbol.dispose]: () => {
      netns.close();
      sh(`ip netns del ${name}`);
    },
  };
}

async function connect(family: 4 | 6 = 4): Promise<[net.Socket, net.Socket]> {
  const client = lab.call(lab.at(family));
  client.on("error", () => {});
  return [client, await lab.app.next()];
}

async function send(from: net.Socket, to: net.Socket, bytes: Buffer): Promise<void> {
  let left = bytes.length;
  const arrived = new Promise<void>((resolve) => {
    to.on("data", ({ length }) => {
      left -= length;
      if (left <= 0) resolve();
    });
  });
  from.write(bytes);
  await arrived;
}

async function close(first: net.Socket, second: net.Socket): Promise<void> {
  first.resume();
  second.resume();
  const ended = once(second, "end");
  first.end();
  await ended;
  const closed = once(first, "close");
  second.end();
  await closed;
}

/** TCP sockets of the application's connections, by state; those that have ended as they should aside. */
const sockets = (pod: "$POD" | "$OTHER") =>
  sh(
    `ip netns exec ${pod} ss -Htan state connected exclude time-wait | grep ':${APP_PORT}' || true`,
  );

describe("a direct connection", () => {
  it.each([
    ["IPv4", "client", 4],
    ["IPv4", "server", 4],
    ["IPv6", "client", 6],
    ["IPv6", "server", 6],
  ] as const)(
    "shows the node no more than its first packet: over %s, closed first by the %s",
    async (_, closer, family) => {
      trackConnections();
      const [client, served] = await connect(family);
      await send(client, served, MUCH);
      await send(served, client, MUCH);
      expect(flows()).toMatchObject([{ accepted: true, closed: false }]);
      await (closer === "client" ? close(client, served) : close(served, client));
      await expect.poll(() => flows()).toEqual([]);
      expect(seen()).toEqual({ begins: 1, others: 0 });
      expect([sockets("$POD"), sockets("$OTHER")]).toEqual(["", ""]);
      expect(lab.outbound.connectionCount + lab.plaintext.connectionCount).toBe(0);
    },
  );

  it.each(["client", "server"] as const)("ends with a reset of the %s", async (whose) => {
    trackConnections();
    const [client, served] = await connect();
    await talk(client, served);
    const [first, second] = whose === "client" ? [client, served] : [served, client];
    const closed = new Promise((resolve) => second.once("close", resolve));
    second.resume();
    first.resetAndDestroy();
    await closed;
    await expect.poll(() => flows()).toEqual([]);
    expect(seen()).toEqual({ begins: 1, others: 0 });
  });

  it("is refused as fast as ever where nobody listens", async () => {
    trackConnections();
    const at = lab.at(4, APP_PORT + 1);
    lab.allow(at);
    await expect(dial(lab.caller, at.ip, at.port)).rejects.toMatchObject({ code: "ECONNREFUSED" });
    expect(seen()).toEqual({ begins: 1, others: 0 });
    await expect.poll(() => flows()).toEqual([]);
  });

  it("does not begin where the node's network forbids it, whatever is sent by hand", async () => {
    sh(`ip netns exec $NODE nft '
      add table inet watch
      add chain inet watch forward { type filter hook forward priority 0; }
      add rule inet watch forward tcp dport ${APP_PORT} drop'`);
    const client = lab.call(lab.at());
    client.on("error", () => {});
    await expect.poll(() => flows().length).toBe(1);
    const [{ source, destination }] = flows() as [ReturnType<typeof flows>[number]];
    for (const flags of [
      TCP_FLAG.SYN,
      TCP_FLAG.SYN | TCP_FLAG.PSH,
      TCP_FLAG.SYN | TCP_FLAG.ACK,
      TCP_FLAG.ACK,
      TCP_FLAG.FIN,
      0,
    ]) {
      sendSegment(lab.caller, source, destination, flags);
    }
    expect(sockets("$OTHER")).toBe("");
    expect(lab.app.connectionCount).toBe(0);
    client.destroy();
    await expect.poll(() => flows()).toEqual([]);
  });

  it("takes no packets by the link of another pod than those it is between", async () => {
    const [client, served] = await connect();
    await talk(client, served);
    const [{ source, destination }] = flows() as [ReturnType<typeof flows>[number]];
    using third = addPod();
    await harness.backend.install(third.netns, ALL);
    await openShortcut(harness, third.netns);
    expect(shortcuts()).toEqual({ "": 3 });
    sh(`ip netns exec $NODE nft '
      add table inet watch
      add chain inet watch seen { type filter hook prerouting priority -300; }
      add rule inet watch seen iifname v3 tcp dport ${APP_PORT} counter'`);
    sendSegment(third, source, destination, TCP_FLAG.ACK);
    expect(sh("ip netns exec $NODE nft list table inet watch")).toContain("packets 1 ");
    await talk(client, served);
    client.destroy();
    await harness.backend.remove(third.netns);
  });

  it("goes on when its pods leave the mesh, and its program then goes with it", async () => {
    trackConnections();
    const [client, served] = await connect();
    await send(client, served, MUCH);
    const { pod, other } = harness.network;
    for (const { netns } of [pod, other]) await harness.backend.remove(netns);
    harness.node.collectGarbage();
    expect(harness.node.pins.names("shortcuts")).toHaveLength(2);
    await send(served, client, MUCH);
    await close(served, client);
    expect(seen()).toEqual({ begins: 1, others: 0 });
    harness.node.collectGarbage();
    expect(harness.node.pins.names("shortcuts")).toEqual([]);
  });

  it("goes on with the next agent, whose programs take over, or which wants no shortcuts", async () => {
    trackConnections();
    const [client, served] = await connect();
    const { cgroups, pins, network } = harness;
    for (const shortcuts of [true, false]) {
      const hostNetns = network.node.netns;
      using node = new EbpfNode({ cgroup: cgroups.node, pins, hostNetns, shortcuts });
      node.attach();
      const backend = new EbpfBackend(node, harness.backend, harness.kubelet);
      for (const { netns } of [network.pod, network.other]) await backend.install(netns, ALL);
      await talk(client, served);
    }
    const [later, servedLater] = await connect();
    expect(flows().map(({ link }) => link !== 0)).toEqual(expect.arrayContaining([true, false]));
    await talk(later, servedLater);
    later.destroy();
    await close(served, client);
    expect(seen().begins).toBe(2);
  });
});

it("goes on after the last pod that eBPF captured, and what eBPF left goes with it", async () => {
  const own = ebpfHarness();
  const { backend, network, pins } = own;
  const ownLab = await DirectLab.start(own);
  ownLab.allow(ownLab.at());
  const client = ownLab.call(ownLab.at());
  const served = await ownLab.app.next();
  const translating = new NftablesBackend({ hostNetns: network.node.netns, probeUid: undefined });
  const remains = openRemains(pins);
  const next = new SwitchingBackend({ translating, ebpf: undefined, remains });
  for (const { netns } of [network.pod, network.other]) next.forget(netns);
  next.collectGarbage();
  network.sh(`ip netns exec $NODE nft '
    add table inet watch
    add chain inet watch forward { type filter hook forward priority 0; }
    add rule inet watch forward drop'`);
  await talk(client, served);
  await close(served, client);
  expect(existsSync(pins)).toBe(true);
  next.collectGarbage();
  expect(existsSync(pins)).toBe(false);
  for (const { netns } of [network.pod, network.other]) await backend.remove(netns);
  await ownLab[Symbol.asyncDispose]();
  own.close();
});

describe("a pod's link", () => {
  const LINK = "ip -n $NODE link";
  const FILTERS = "tc -n $NODE qdisc add dev v2 clsact";
  it.each([
    [
      "queueing",
      "tc -n $NODE qdisc add dev v2 root pfifo_fast",
      "tc -n $NODE qdisc del dev v2 root",
    ],
    ["filters", FILTERS, "tc -n $NODE qdisc del dev v2 clsact"],
    ["links", "ip -n $OTHER link add more type veth peer name most", "ip -n $OTHER link del more"],
  ])(
    "with others at it is left alone, as long as they are there: %s",
    async (problem, add, del) => {
      const { netns } = harness.network.other;
      const [before, servedBefore] = await connect();
      sh(add);
      expect(await harness.backend.verify(netns, ALL)).toBe("drifted");
      await harness.backend.install(netns, ALL);
      expect(await harness.backend.verify(netns, ALL)).toBe("ok");
      expect(shortcuts()).toEqual({ "": 1, [problem]: 1 });

      trackConnections();
      const [client, served] = await connect();
      await send(client, served, MUCH);
      await close(served, client);
      expect(seen().begins).toBe(1);
      expect(seen().others).toBeGreaterThan(5);
      await talk(before, servedBefore);
      before.destroy();
      servedBefore.destroy();
      await expect.poll(() => flows()).toEqual([]);

      sh(del);
      expect([...harness.backend.slotsWithoutShortcut()]).toEqual([lab.slot]);
      harness.backend.openShortcut(netns);
      expect(await harness.backend.verify(netns, ALL)).toBe("ok");
      expect(shortcuts()).toEqual({ "": 2 });
    },
  );

  it("gets a program when its pod talks directly, and not before", async () => {
    const { network, node, backend } = harness;
    const pods = [network.pod.netns, network.other.netns];
    const translating = new NftablesBackend({ hostNetns: network.node.netns, probeUid: undefined });
    const switching = new SwitchingBackend({ translating, ebpf: backend });
    node.steering.direct.withdrawAll();
    for (const netns of pods) {
      await backend.remove(netns);
      backend.collectGarbage();
      await backend.install(netns, ALL);
    }
    await switching.openShortcuts(pods);
    expect(node.pins.names("shortcuts")).toEqual([]);

    const cookie = cookieOfNetns(network.pod.netns.fd);
    const source = { netns: cookie, slot: node.steering.slotOf(cookie)! };
    const slot = node.steering.slotOf(cookieOfNetns(network.other.netns.fd))!;
    const generation = node.steering.direct.generation(slot);
    node.steering.direct.allow(source, lab.at(), [{ to: lab.at(), slot, generation, weight: 1 }]);
    expect(backend.slotsWithoutShortcut()).toEqual(new Set([source.slot, slot]));
    await switching.openShortcuts(pods);
    expect(node.pins.names("shortcuts")).toHaveLength(2);
    expect(backend.slotsWithoutShortcut()).toEqual(new Set());
  });

  it("that leads to another namespace than the node's is left alone", async () => {
    const { other } = harness.network;
    sh(`${LINK} set v2 netns $POD`);
    await harness.backend.install(other.netns, ALL);
    expect(shortcuts()).toEqual({ "": 1, node: 1 });
    sh(`ip -n $POD link set v2 netns $NODE; ${LINK} set v2 up
      ip -n $NODE addr add 10.77.2.1/24 dev v2; ip -n $NODE addr add fd77:2::1/64 dev v2 nodad`);
  });

  it("loses its program when somebody removes it, and gets it back", async () => {
    const { netns } = harness.network.other;
    harness.node.pins.detach("shortcuts", podPin(cookieOfNetns(netns.fd)));
    expect(await harness.backend.verify(netns, ALL)).toBe("drifted");
    await harness.backend.install(netns, ALL);
    expect(await harness.backend.verify(netns, ALL)).toBe("ok");
  });

  it("is known to the next agent, which finds it as it should be", async () => {
    const { cgroups, pins, network } = harness;
    using node = new EbpfNode({ cgroup: cgroups.node, pins, hostNetns: network.node.netns });
    const backend = new EbpfBackend(node, harness.backend, harness.kubelet);
    for (const { netns } of [network.pod, network.other]) {
      expect(await backend.verify(netns, ALL)).toBe("ok");
    }
    expect(Object.fromEntries(node.shortcuts.counts())).toEqual({ "": 2 });
  });

  it("is not used by a kernel without tcx", () => {
    const { cgroups, network } = harness;
    const module = (path: string) => JSON.stringify(join(import.meta.dirname, path));
    const script = `
      import { openNetns } from ${module("../../../common/src/sys/netns.ts")};
      import { EbpfNode } from ${module("ebpf-node.ts")};
      import { failCalls } from ${module("../testing/gate-without.ts")};
      failCalls({ number: ${BPF_NUMBER}, arguments: { 0: ${PROG_QUERY} }, errno: ${os.errno.EINVAL} });
      const hostNetns = openNetns(${JSON.stringify(network.node.path)});
      const pins = ${JSON.stringify(pinFolder(cgroups.bpffs, "old"))};
      const node = new EbpfNode({ cgroup: ${JSON.stringify(cgroups.node)}, pins, hostNetns });
      node.shortcuts.open(1n, openNetns(${JSON.stringify(network.pod.path)}), 0);
      node.pins.removeAll();
      console.log(JSON.stringify([[...node.shortcuts.counts()], node.steering.link(0)]));`;
    const args = ["--input-type=module", "-e", script];
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
    expect([stdout, stderr]).toEqual(['[[["kernel",1]],0]\n', ""]);
  });

  it("is not used where nobody wants shortcuts", async () => {
    const { cgroups, pins, network } = harness;
    const hostNetns = network.node.netns;
    using node = new EbpfNode({ cgroup: cgroups.node, pins, hostNetns, shortcuts: false });
    const backend = new EbpfBackend(node, harness.backend, harness.kubelet);
    await backend.install(network.pod.netns, ALL);
    expect(Object.fromEntries(node.shortcuts.counts())).toEqual({ off: 1 });
    trackConnections();
    const [client, served] = await connect();
    await close(client, served);
    expect(seen().others).toBeGreaterThan(1);
    await expect.poll(() => flows()).toEqual([]);
  });
});
