// The address plan of the local mesh: a fabric that joins the nodes, a block of pod addresses for each
// node, and the range Services draw from. Pure.

import { cidrContains, parseCidr } from "@ambit/common/net/cidr.ts";
import { type Ip, parseIp } from "@ambit/common/net/ip.ts";

/** Both families of one thing's address. */
export interface DualIp {
  readonly v4: Ip;
  readonly v6: Ip;
}

/** Nodes are 172.30.0.11 and up; a mesh on one machine needs no more than this. */
export const NODES_MAX = 32;
/** Host numbers 2..254 of a node's /24; .1 is the node itself. */
export const POD_HOST_MIN = 2;
export const POD_HOST_MAX = 254;

export const SERVICE_RANGE_V4 = parseCidr("10.96.0.0/16")!;
export const SERVICE_RANGE_V6 = parseCidr("fd00:10:96::/112")!;
const SERVICE_HOST_MAX = 0xfffe;

/** Where istiod-lite listens, on the fabric. */
export const ISTIOD: DualIp = { v4: ip("172.30.0.2"), v6: ip("fd00:172:30::2") };

/** The node's address on the fabric. `node` counts from 1. */
export function nodeAddress(node: number): DualIp {
  return { v4: ip(`172.30.0.${10 + node}`), v6: ip(`fd00:172:30::${(10 + node).toString(16)}`) };
}

/** The node as its pods see it: their gateway and their name server. */
export function nodeGateway(node: number): DualIp {
  return podAddress(node, 1);
}

export function podAddress(node: number, host: number): DualIp {
  return { v4: ip(`10.244.${node}.${host}`), v6: ip(`fd00:10:244:${node}::${host.toString(16)}`) };
}

export function podBlocks(node: number): { v4: string; v6: string } {
  return { v4: `10.244.${node}.0/24`, v6: `fd00:10:244:${node}::/64` };
}

/** The lowest address of the Service range that is not taken. Throws when the range is full. */
export function freeServiceIp(family: 4 | 6, taken: ReadonlySet<string>): Ip {
  for (let host = 1; host <= SERVICE_HOST_MAX; host++) {
    const candidate =
      family === 4
        ? ip(`10.96.${host >> 8}.${host & 0xff}`)
        : ip(`fd00:10:96::${host.toString(16)}`);
    if (!taken.has(candidate)) return candidate;
  }
  throw new Error(`no free Service address of IPv${family} is left`);
}

export function isServiceIp(address: Ip): boolean {
  return cidrContains(SERVICE_RANGE_V4, address) || cidrContains(SERVICE_RANGE_V6, address);
}

function ip(text: string): Ip {
  return parseIp(text)!;
}
