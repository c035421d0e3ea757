// The node's side of the probe exemption: packets from a socket of the node itself (kubelet) to an
// enrolled pod get the probe address as source, which the pod's rules let past ztunnel. Forwarded
// packets have no socket here, so pods and outside clients never match. Pure.

import { type Ip, ipFamily, parseIp } from "@ambit/common/net/ip.ts";
import type { ProbeTarget, ProbeTargets } from "./backend.ts";
import type { Table } from "./ruleset.ts";
import * as wire from "./wire.ts";

/** `probeUid` narrows the exemption to one user's sockets; undefined means any local socket. */
export function hostTable(targets: ProbeTargets, probeUid: number | undefined): Table {
  const origin = probeUid === undefined ? "meta skuid >= 0" : `meta skuid ${probeUid}`;
  const rule = (family: "ip" | "ip6", set: string, source: Ip) => ({
    label: "probe",
    text: `${origin} meta l4proto tcp ${family} daddr @${set} snat ${family} to ${source}`,
  });
  return {
    name: wire.NAT_TABLE,
    sets: [
      renderSet(wire.PROBE_SET_IPV4, "ipv4_addr", targets, 4),
      renderSet(wire.PROBE_SET_IPV6, "ipv6_addr", targets, 6),
    ],
    chains: [
      {
        name: "istio-postrouting",
        rules: [
          rule("ip", wire.PROBE_SET_IPV4, wire.PROBE_IPV4),
          rule("ip6", wire.PROBE_SET_IPV6, wire.PROBE_IPV6),
        ],
      },
      {
        name: "postrouting",
        hook: "type nat hook postrouting priority 100",
        rules: [{ label: "ambit", text: "jump istio-postrouting" }],
      },
    ],
  };
}

function renderSet(name: string, type: string, targets: ProbeTargets, family: 4 | 6): string {
  const elements = [...targets]
    .filter(([ip]) => ipFamily(ip) === family)
    .map(([ip, { uid }]) => `${ip} comment "${commentText(uid)}"`);
  const body = elements.length === 0 ? "" : ` elements = { ${elements.join(", ")} };`;
  return `  set ${name} { type ${type};${body} }`;
}

/** What a uid may leave in a script: nothing that could end the quotes. */
export function commentText(uid: string): string {
  return uid.replaceAll(/[^A-Za-z0-9._-]/g, "_").slice(0, 128);
}

/** Reads address and uid of each element off nft's listing of the two sets. */
export function parseProbeTargets(listing: string): ProbeTargets {
  const targets = new Map<Ip, ProbeTarget>();
  for (const [, elements = ""] of listing.matchAll(/elements = \{([^}]*)\}/g)) {
    for (const [, text = "", uid = ""] of elements.matchAll(/([0-9a-f.:]+) comment "([^"]*)"/g)) {
      const ip = parseIp(text);
      if (ip !== undefined) targets.set(ip, { uid });
    }
  }
  return targets;
}
