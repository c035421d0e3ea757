// The redirection backends behind one face, so that one set of cases runs against both: a pod in a test
// network, the test itself as its ztunnel.

import type net from "node:net";
import { expect } from "vitest";
import { parseIp } from "@ambit/common/net/ip.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { type ListenerRole, pinFolder } from "@ambit/common/sys/bpf-steering.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { originalDst, socketFd } from "@ambit/common/sys/sockets.ts";
import type { PodRedirection, RedirectionBackend } from "../rules/backend.ts";
import { EbpfBackend } from "../rules/ebpf-backend.ts";
import { EbpfNode } from "../rules/ebpf-node.ts";
import { IptablesBackend } from "../rules/iptables-backend.ts";
import type { KubeletSockets } from "../rules/kubelet-sockets.ts";
import type { IptablesKind } from "../rules/iptables-binaries.ts";
import { NftablesBackend } from "../rules/nftables-backend.ts";
import * as wire from "../rules/wire.ts";
import { createTestCgroups, type TestCgroups } from "./test-cgroups.ts";
import { createTestNetwork, ip, type TestNetwork, TestServer } from "./test-network.ts";

export const ALL: PodRedirection = {
  dnsCapture: true,
  inboundCapture: true,
  virtualInterfaces: [],
  ipv6: true,
};

export interface RedirectionHarness {
  readonly name: "nftables" | "iptables" | "ebpf";
  readonly network: TestNetwork;
  readonly backend: RedirectionBackend;
  /** What an application sees of a connection that nobody takes. */
  readonly refusal: "ECONNREFUSED" | "EPERM";
  /** Puts redirection in place in the pod. */
  readonly install: (changes?: Partial<PodRedirection>) => Promise<void>;
  /** ztunnel's listener for one kind of connection, in the pod. */
  readonly listen: (role: ListenerRole) => Promise<TestServer>;
  /** Where an accepted connection was going. */
  readonly destinationOf: (socket: net.Socket) => SocketAddress | undefined;
  /** While undisposed, the test's sockets are ztunnel's; give them `mark` too. */
  readonly asProxy: () => Disposable;
  readonly mark: number;
  /** Takes the pod's redirection away, as after each test. */
  readonly reset: () => Promise<void>;
  readonly close: () => void;
}

export function nftablesHarness(): RedirectionHarness {
  return natHarness("nftables", (hostNetns) => {
    return new NftablesBackend({ hostNetns, probeUid: undefined });
  });
}

export function iptablesHarness(kind: IptablesKind): RedirectionHarness {
  return natHarness("iptables", (hostNetns) => {
    return new IptablesBackend({ kind, hostNetns, probeUid: undefined });
  });
}

/** What both ways of rewriting destinations share: ztunnel's ports, and how the destination is found. */
function natHarness(
  name: "nftables" | "iptables",
  create: (hostNetns: NetnsHandle) => RedirectionBackend,
): RedirectionHarness {
  const network = createTestNetwork();
  const backend = create(network.node.netns);
  const ports = {
    OUTBOUND: wire.OUTBOUND_PORT,
    PLAINTEXT: wire.INBOUND_PORT,
    HBONE: wire.HBONE_PORT,
    DNS: wire.DNS_PORT,
  };
  return {
    name,
    network,
    backend,
    refusal: "ECONNREFUSED",
    mark: wire.PROXY_MARK,
    install: (changes = {}) => backend.install(network.pod.netns, { ...ALL, ...changes }),
    listen: (role) =>
      TestServer.start(
        network.pod,
        ip(role === "DNS" ? "127.0.0.1" : "::"),
        ports[role],
        wire.PROXY_MARK,
      ),
    destinationOf: (socket) => originalDst(socketFd(socket)),
    asProxy: () => ({ [Symbol.dispose]: () => {} }),
    reset: () => resetPod(backend, network),
    close: () => network.remove(),
  };
}

export interface EbpfHarness extends RedirectionHarness {
  readonly cgroups: TestCgroups;
  readonly pins: string;
  readonly backend: EbpfBackend;
  readonly node: EbpfNode;
  readonly kubelet: Pick<KubeletSockets, "problem">;
  readonly slot: () => number;
}

export function ebpfHarness(): EbpfHarness {
  const network = createTestNetwork();
  const cgroups = createTestCgroups();
  const pins = pinFolder(cgroups.bpffs, "node-1");
  const node = new EbpfNode({ cgroup: cgroups.node, pins, hostNetns: network.node.netns });
  node.attach();
  node.admitProxy(cgroups.ztunnel);
  const probes = new NftablesBackend({ hostNetns: network.node.netns, probeUid: undefined });
  node.admitKubelet(cgroups.kubelet);
  const kubelet = { problem: undefined };
  const backend = new EbpfBackend(node, probes, kubelet);
  const slot = () => backend.slotOf(network.pod.netns) ?? -1;
  return {
    name: "ebpf",
    network,
    cgroups,
    pins,
    node,
    backend,
    kubelet,
    slot,
    refusal: "EPERM",
    mark: wire.PROXY_MARK,
    install: (changes = {}) => backend.install(network.pod.netns, { ...ALL, ...changes }),
    listen: async (role) => {
      const server = await TestServer.start(network.pod, ip("::"), 0);
      node.steering.setListener(slot(), role, server.fd);
      return server;
    },
    destinationOf: ({ localAddress, localPort }) => {
      const local = parseIp(localAddress ?? "");
      return local && { ip: local, port: localPort! };
    },
    asProxy: () => cgroups.enter(cgroups.ztunnel),
    reset: () => resetPod(backend, network),
    close: () => {
      node.pins.removeAll();
      node[Symbol.dispose]();
      cgroups.remove();
      network.remove();
    },
  };
}

/**
 * Has the pod's direct connections take the shortcut. The kernel puts a new link into service some moments after it is
 * up: until then it cannot be told what will order its packets.
 */
export async function openShortcut({ backend, node }: EbpfHarness, netns: NetnsHandle) {
  await expect
    .poll(() => {
      backend.openShortcut(netns);
      return node.steering.link(backend.slotOf(netns)!);
    }, LINK_SOON)
    .toBeGreaterThan(0);
}

/** The kernel is not in a hurry: a second, where nothing is urgent. */
const LINK_SOON = { timeout: 5_000, interval: 10 };

async function resetPod(backend: RedirectionBackend, { pod }: TestNetwork): Promise<void> {
  await backend.remove(pod.netns);
  await backend.removeHost();
}
