// The two ipsets that hold the addresses whose probes are exempt, as ipset reads and prints them.
// A set is filled beside the old one and swapped in, so that no probe meets half of it. Pure.

import { type Ip, type IpFamily, ipFamily, parseIp } from "@ambit/common/net/ip.ts";
import type { ProbeTarget, ProbeTargets } from "./backend.ts";
import { commentText } from "./host-tables.ts";
import { PROBE_SETS } from "./iptables-tables.ts";

const FAMILY = { 4: "inet", 6: "inet6" } as const;

/** Input of `ipset restore` that makes the family's set exactly `targets`. */
export function renderProbeSet(targets: ProbeTargets, family: IpFamily): string {
  const name = PROBE_SETS[family];
  const next = `${name}-next`;
  const create = (set: string) => `create ${set} hash:ip family ${FAMILY[family]} comment -exist`;
  const elements = [...targets]
    .filter(([ip]) => ipFamily(ip) === family)
    .map(([ip, { uid }]) => `add ${next} ${ip} comment "${commentText(uid)}" -exist`);
  const swap = [`swap ${next} ${name}`, `destroy ${next}`];
  return [create(name), create(next), `flush ${next}`, ...elements, ...swap, ""].join("\n");
}

/** Reads address and pod uid of each element off `ipset save`. */
export function parseProbeSet(text: string): ProbeTargets {
  const targets = new Map<Ip, ProbeTarget>();
  for (const [, address = "", uid = ""] of text.matchAll(/^add \S+ (\S+) comment "([^"]*)"$/gm)) {
    const ip = parseIp(address);
    if (ip !== undefined) targets.set(ip, { uid });
  }
  return targets;
}
