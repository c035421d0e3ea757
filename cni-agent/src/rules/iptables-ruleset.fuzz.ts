// Fuzz target: whatever iptables-save and ipset print, in whatever version, is read without throwing.

import type { PodRedirection } from "./backend.ts";
import { parseProbeSet } from "./ipset.ts";
import { compareTables, parseListing, renderChange } from "./iptables-ruleset.ts";
import { podXtTables } from "./iptables-tables.ts";

export const name = "iptables-listing";

const ALL: PodRedirection = {
  dnsCapture: true,
  inboundCapture: true,
  virtualInterfaces: ["tap0"],
  ipv6: true,
};

export function fuzz(data: Uint8Array): void {
  const text = Buffer.from(data).toString("latin1");
  const listing = parseListing(text);
  compareTables(listing, podXtTables(ALL, 4));
  renderChange(listing, podXtTables(ALL, 6));
  parseProbeSet(text);
}

export function corpus(): Uint8Array[] {
  const nat = ":OUTPUT ACCEPT [0:0]\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\n";
  return [
    `*nat\n${nat}[1:60] -A ISTIO_OUTPUT -p tcp -m comment --comment "return 1" -j ACCEPT\nCOMMIT\n`,
    'add istio-inpod-probes-v4 10.0.0.1 comment "uid-1"\n',
  ].map((text) => Buffer.from(text));
}
