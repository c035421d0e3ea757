// The wires: a bridge in a namespace of its own, nodes joined to it, pods behind their node. Owns no
// state: everything it makes is found again by name. Every link has both ends in namespaces of ours,
// so deleting the namespaces deletes the links.

import { writeFileSync } from "node:fs";
import { inNetns, openNetns } from "@ambit/common/sys/netns.ts";
import {
  type DualIp,
  ISTIOD,
  nodeAddress,
  nodeGateway,
  podBlocks,
  SERVICE_RANGE_V4,
  SERVICE_RANGE_V6,
} from "./addresses.ts";
import { formatCidr } from "@ambit/common/net/cidr.ts";
import { ipBatch, runCommand } from "./command.ts";
import { netnsPath } from "./home.ts";

export const BRIDGE = "mesh0";

/** Routers forward, and nobody waits for duplicate address detection on links we number ourselves. */
const ROUTER_SYSCTLS = {
  "ipv4/ip_forward": "1",
  "ipv6/conf/all/forwarding": "1",
  "ipv4/conf/all/rp_filter": "0",
  "ipv4/conf/default/rp_filter": "0",
  "ipv6/conf/all/accept_dad": "0",
  "ipv6/conf/default/accept_dad": "0",
} as const;

const POD_SYSCTLS = {
  "ipv4/conf/all/rp_filter": "0",
  "ipv4/conf/default/rp_filter": "0",
  "ipv6/conf/all/accept_dad": "0",
  "ipv6/conf/default/accept_dad": "0",
  "ipv4/ip_unprivileged_port_start": "0",
} as const;

/** The fabric: the bridge, with istiod-lite's address on it, and a way to every node's pods. */
export async function createFabric(netns: string, nodes: number): Promise<void> {
  await createNetns(netns, ROUTER_SYSCTLS);
  await ipBatch(netns, [
    "link set lo up",
    `link add ${BRIDGE} type bridge`,
    `addr add ${ISTIOD.v4}/24 dev ${BRIDGE}`,
    `addr add ${ISTIOD.v6}/64 dev ${BRIDGE} nodad`,
    `link set ${BRIDGE} up`,
    ...numbers(nodes).flatMap((node) => routesToPods(node, BRIDGE)),
  ]);
}

/** One node: its uplink to the bridge, its own address, and routes to the other nodes' pods. */
export async function createNode(
  names: { readonly fabric: string; readonly netns: string },
  node: number,
  nodes: number,
): Promise<void> {
  await createNetns(names.netns, ROUTER_SYSCTLS);
  const { v4, v6 } = nodeAddress(node);
  const gateway = nodeGateway(node);
  await ipBatch(names.fabric, [
    `link add node${node} type veth peer name eth0 netns ${names.netns}`,
    `link set node${node} master ${BRIDGE} up`,
  ]);
  await ipBatch(names.netns, [
    "link set lo up",
    `addr add ${gateway.v4}/32 dev lo`,
    `addr add ${gateway.v6}/128 dev lo nodad`,
    `addr add ${v4}/24 dev eth0`,
    `addr add ${v6}/64 dev eth0 nodad`,
    "link set eth0 up",
    // Service addresses need a route to be translated at all; what is left untranslated is refused.
    `route add ${formatCidr(SERVICE_RANGE_V4)} dev eth0`,
    `route add ${formatCidr(SERVICE_RANGE_V6)} dev eth0`,
    ...numbers(nodes).flatMap((other) => (other === node ? [] : routesToPods(other, "eth0"))),
  ]);
}

export interface PodWires {
  readonly netns: string;
  readonly nodeNetns: string;
  readonly node: number;
  /** The node's end of the pod's link; the pod's end is eth0. */
  readonly link: string;
  readonly address: DualIp;
}

/** A pod's namespace with one link to its node and everything else routed through the node. */
export async function createPod(wires: PodWires): Promise<void> {
  const { netns, nodeNetns, node, link, address } = wires;
  const gateway = nodeGateway(node);
  await createNetns(netns, POD_SYSCTLS);
  await ipBatch(nodeNetns, [
    `link add ${link} type veth peer name eth0 netns ${netns}`,
    `addr add fe80::1/64 dev ${link} nodad`,
    `link set ${link} up`,
    `route add ${address.v4}/32 dev ${link} src ${gateway.v4}`,
    `route add ${address.v6}/128 dev ${link} src ${gateway.v6}`,
  ]);
  await ipBatch(netns, [
    "link set lo up",
    `addr add ${address.v4}/32 dev eth0`,
    `addr add ${address.v6}/128 dev eth0 nodad`,
    "link set eth0 up",
    `route add ${gateway.v4}/32 dev eth0`,
    `route add default via ${gateway.v4} dev eth0`,
    "route add default via fe80::1 dev eth0",
  ]);
}

/** Cuts the pod's link at once (ztunnel may hold the namespace a little longer), then its name. */
export async function removePod(wires: {
  readonly netns: string;
  readonly nodeNetns: string;
  readonly link: string;
}): Promise<void> {
  const { netns, nodeNetns, link } = wires;
  await runCommand("ip", ["-n", nodeNetns, "link", "del", link]).catch(() => undefined);
  await runCommand("ip", ["netns", "del", netns]).catch(() => undefined);
}

async function createNetns(
  netns: string,
  sysctls: Readonly<Record<string, string>>,
): Promise<void> {
  await runCommand("ip", ["netns", "add", netns]);
  using handle = openNetns(netnsPath(netns));
  // /proc/sys/net shows the namespace of the thread that opens it.
  inNetns(handle.fd, () => {
    for (const [key, value] of Object.entries(sysctls))
      writeFileSync(`/proc/sys/net/${key}`, value);
  });
}

function routesToPods(node: number, device: string): string[] {
  const blocks = podBlocks(node);
  const via = nodeAddress(node);
  return [
    `route add ${blocks.v4} via ${via.v4} dev ${device}`,
    `route add ${blocks.v6} via ${via.v6} dev ${device}`,
  ];
}

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}
