// A pod's own addresses, and the one it would send from, as its network namespace has them now.

import { networkInterfaces } from "node:os";
import { ipFamily, type Ip, isLoopback, parseIp } from "@ambit/common/net/ip.ts";
import { inNetns, type NetnsHandle } from "@ambit/common/sys/netns.ts";
import { sourceAddress } from "@ambit/common/sys/source-address.ts";

/** Addresses for documentation: nobody has them, and no packet is sent. */
const SOMEWHERE = { 4: "192.0.2.1" as Ip, 6: "2001:db8::1" as Ip } as const;

/** Of all interfaces that are up, loopback's own addresses aside. */
export function podAddresses(netns: NetnsHandle): Ip[] {
  const interfaces = inNetns(netns.fd, networkInterfaces);
  const all = Object.values(interfaces).flatMap((list) => list ?? []);
  const ips = all.flatMap(({ address }) => parseIp(address.split("%")[0]!) ?? []);
  return [...new Set(ips)].filter((ip) => !isLoopback(ip)).sort();
}

/** What the pod's sockets are bound to when they connect; undefined without an address of the family. */
export function preferredSource(netns: NetnsHandle, family: 4 | 6): Ip | undefined {
  const chosen = sourceAddress(netns.fd, SOMEWHERE[family]);
  if (chosen !== undefined && !isLoopback(chosen)) return chosen;
  return podAddresses(netns).find((ip) => ipFamily(ip) === family && !ip.startsWith("fe80:"));
}
