// The rules inside a pod's namespace (Istio's logic, as nftables tables): which packets go to which of
// ztunnel's ports, and how answers to connections with a spoofed source find their way back.
// Pure: options in, tables out.

import type { PodRedirection } from "./backend.ts";
import type { Rule, Table } from "./ruleset.ts";
import * as wire from "./wire.ts";

const LOOPBACK = { ip: "127.0.0.1", ip6: "::1" } as const;
const PROBE = { ip: wire.PROBE_IPV4, ip6: wire.PROBE_IPV6 } as const;
type Family = keyof typeof LOOPBACK;

const { hex } = wire;
const FROM_PROXY = `meta mark & ${hex(wire.MARK_MASK)} == ${hex(wire.PROXY_MARK)}`;
const NOT_FROM_PROXY = `meta mark & ${hex(wire.MARK_MASK)} != ${hex(wire.PROXY_MARK)}`;
const IS_RETURN = `& ${hex(wire.MARK_MASK)} == ${hex(wire.CONNECTION_MARK)}`;
const KEPT_BITS = hex((~wire.MARK_MASK & 0xffffffff) >>> 0);

/**
 * Only what begins: a connection from before the pod was captured is new to conntrack too, with its next
 * packet, and translating it then would end it.
 */
const BEGINS = "tcp flags & (fin | syn | rst | ack) == syn";

/** Every table a pod may have, so that one no longer wanted is removed. */
export const POD_TABLES = [wire.NAT_TABLE, wire.MANGLE_TABLE, wire.RAW_TABLE] as const;

/** Of the NAT table: the chains that send packets to ztunnel. */
export const CAPTURING_CHAINS = ["istio-prerouting", "istio-output"] as const;

/** The tables for one pod. */
export function podTables(redirection: PodRedirection): Table[] {
  const families: Family[] = redirection.ipv6 ? ["ip", "ip6"] : ["ip"];
  const tables = [natTable(redirection, families), mangleTable()];
  return redirection.dnsCapture ? [...tables, rawTable()] : tables;
}

function natTable(redirection: PodRedirection, families: readonly Family[]): Table {
  return hookedTable(
    wire.NAT_TABLE,
    {
      prerouting: "type nat hook prerouting priority -100",
      output: "type nat hook output priority -100",
    },
    natPrerouting(redirection, families),
    natOutput(redirection, families),
  );
}

function natPrerouting(redirection: PodRedirection, families: readonly Family[]): Rule[] {
  const rules: Rule[] = redirection.virtualInterfaces.flatMap((name) => [
    {
      label: "virtual-interface",
      text: `iifname "${name}" ${BEGINS} redirect to :${wire.OUTBOUND_PORT}`,
    },
    { label: "virtual-interface", text: `iifname "${name}" meta l4proto tcp return` },
  ]);
  if (!redirection.inboundCapture) return rules;
  for (const family of families) {
    rules.push({
      label: "probe",
      text: `${family} saddr ${PROBE[family]} meta l4proto tcp accept`,
    });
  }
  for (const family of families) {
    const elsewhere = `${family} daddr != ${LOOPBACK[family]} tcp dport != ${wire.HBONE_PORT}`;
    const match = `${elsewhere} ${BEGINS}`;
    rules.push({
      label: "inbound",
      text: `${match} ${NOT_FROM_PROXY} redirect to :${wire.INBOUND_PORT}`,
    });
  }
  return rules;
}

function natOutput(redirection: PodRedirection, families: readonly Family[]): Rule[] {
  const each = (label: string, text: (family: Family) => string): Rule[] =>
    families.map((family) => ({ label, text: text(family) }));
  const away = (family: Family) => `${family} daddr != ${LOOPBACK[family]}`;
  const toDns = `${NOT_FROM_PROXY} redirect to :${wire.DNS_PORT}`;
  const dns: Rule[] = [
    ...each("dns-udp", (family) => {
      const protocol = family === "ip" ? "ipv4" : "ipv6";
      return `meta nfproto ${protocol} oifname != "lo" udp dport 53 ${toDns}`;
    }),
    ...each("dns-tcp", (family) => `${away(family)} tcp dport 53 ${BEGINS} ${toDns}`),
  ];
  return [
    ...each("probe", (family) => `${family} daddr ${PROBE[family]} meta l4proto tcp accept`),
    ...(redirection.dnsCapture ? dns : []),
    { label: "return", text: `meta l4proto tcp meta mark ${IS_RETURN} accept` },
    ...each("self-call", (family) => `${away(family)} oifname "lo" accept`),
    ...each("outbound", (family) => {
      const match = `${away(family)} ${BEGINS} ${NOT_FROM_PROXY}`;
      return `${match} redirect to :${wire.OUTBOUND_PORT}`;
    }),
  ];
}

/** Connections that ztunnel opens are remembered; their answers are routed by mark (table 100). */
function mangleTable(): Table {
  const mark = hex(wire.CONNECTION_MARK);
  return hookedTable(
    wire.MANGLE_TABLE,
    {
      prerouting: "type filter hook prerouting priority -150",
      output: "type route hook output priority -150",
    },
    [{ label: "remember", text: `${FROM_PROXY} ct mark set ct mark & ${KEPT_BITS} | ${mark}` }],
    [{ label: "route-back", text: `ct mark ${IS_RETURN} meta mark set ct mark` }],
  );
}

/** ztunnel's own DNS is tracked in a zone of its own: its tuples equal those of redirected queries. */
function rawTable(): Table {
  return hookedTable(
    wire.RAW_TABLE,
    {
      prerouting: "type filter hook prerouting priority -300",
      output: "type filter hook output priority -300",
    },
    [{ label: "dns-answer", text: `udp sport 53 ${NOT_FROM_PROXY} ct zone set ${wire.DNS_ZONE}` }],
    [{ label: "dns-query", text: `udp dport 53 ${FROM_PROXY} ct zone set ${wire.DNS_ZONE}` }],
  );
}

/** Base chains that only jump, as Istio names them. */
function hookedTable(
  name: string,
  hooks: { readonly prerouting: string; readonly output: string },
  prerouting: readonly Rule[],
  output: readonly Rule[],
): Table {
  const jump = (chain: string): Rule[] => [{ label: "ambit", text: `jump ${chain}` }];
  return {
    name,
    chains: [
      { name: "istio-prerouting", rules: prerouting },
      { name: "istio-output", rules: output },
      { name: "prerouting", hook: hooks.prerouting, rules: jump("istio-prerouting") },
      { name: "output", hook: hooks.output, rules: jump("istio-output") },
    ],
  };
}
