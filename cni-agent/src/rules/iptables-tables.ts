// Istio's in-pod rules as iptables wants them, for one address family (the logic is that of pod-tables):
// three tables, in each our two chains and the jumps to them. Pure: options in, rules out.

import type { IpFamily } from "@ambit/common/net/ip.ts";
import type { PodRedirection } from "./backend.ts";
import type { Rule } from "./ruleset.ts";
import * as wire from "./wire.ts";

export type TableName = "nat" | "mangle" | "raw";

/** A chain of ours, and the built-in chain that jumps to it before all else. */
export interface XtChain {
  readonly name: string;
  readonly from: string;
  readonly rules: readonly Rule[];
}

export interface XtTable {
  readonly name: TableName;
  readonly chains: readonly XtChain[];
}

/** Captures last: what the captured need to find their way is in place before. */
export const TABLES_IN_ORDER: readonly TableName[] = ["raw", "mangle", "nat"];

export const OUTPUT_CHAIN = "ISTIO_OUTPUT";
export const PREROUTING_CHAIN = "ISTIO_PRERT";
export const POSTROUTING_CHAIN = "ISTIO_POSTRT";

const LOOPBACK = { 4: "127.0.0.1/32", 6: "::1/128" } as const;
const PROBE = { 4: wire.PROBE_IPV4, 6: wire.PROBE_IPV6 } as const;

const PROXY = wire.maskedMark(wire.PROXY_MARK);
const CONNECTION = wire.maskedMark(wire.CONNECTION_MARK);
const FROM_PROXY = `-m mark --mark ${PROXY}`;
const NOT_FROM_PROXY = `-m mark ! --mark ${PROXY}`;

/** Only what begins (see pod-tables): connections from before the pod was captured go on. */
const BEGINS = "--tcp-flags FIN,SYN,RST,ACK SYN";

/** The tables of one pod, in the order in which they come. */
export function podXtTables(redirection: PodRedirection, family: IpFamily): XtTable[] {
  const tables = [mangleTable(), natTable(redirection, family)];
  return redirection.dnsCapture ? [rawTable(), ...tables] : tables;
}

function natTable(redirection: PodRedirection, family: IpFamily): XtTable {
  return podTable("nat", natPrerouting(redirection, family), natOutput(redirection, family));
}

function natPrerouting(redirection: PodRedirection, family: IpFamily): Rule[] {
  const rules: Rule[] = redirection.virtualInterfaces.flatMap((name) => [
    {
      label: "virtual-interface",
      text: `-i ${name} -p tcp -m tcp ${BEGINS} -j REDIRECT --to-ports ${wire.OUTBOUND_PORT}`,
    },
    { label: "virtual-interface", text: `-i ${name} -p tcp -j RETURN` },
  ]);
  if (!redirection.inboundCapture) return rules;
  const tcp = `-p tcp -m tcp ! --dport ${wire.HBONE_PORT} ${BEGINS}`;
  const match = `! -d ${LOOPBACK[family]} ${tcp} ${NOT_FROM_PROXY}`;
  return [
    ...rules,
    { label: "probe", text: `-s ${PROBE[family]} -p tcp -m tcp -j ACCEPT` },
    { label: "inbound", text: `${match} -j REDIRECT --to-ports ${wire.INBOUND_PORT}` },
  ];
}

function natOutput(redirection: PodRedirection, family: IpFamily): Rule[] {
  const away = `! -d ${LOOPBACK[family]}`;
  const toDns = `${NOT_FROM_PROXY} -j REDIRECT --to-ports ${wire.DNS_PORT}`;
  const dns: Rule[] = [
    { label: "dns-udp", text: `! -o lo -p udp -m udp --dport 53 ${toDns}` },
    { label: "dns-tcp", text: `${away} -p tcp -m tcp --dport 53 ${BEGINS} ${toDns}` },
  ];
  const toOutbound = `-j REDIRECT --to-ports ${wire.OUTBOUND_PORT}`;
  return [
    { label: "probe", text: `-d ${PROBE[family]} -p tcp -m tcp -j ACCEPT` },
    ...(redirection.dnsCapture ? dns : []),
    { label: "return", text: `-p tcp -m mark --mark ${CONNECTION} -j ACCEPT` },
    { label: "self-call", text: `${away} -o lo -j ACCEPT` },
    { label: "outbound", text: `${away} -p tcp -m tcp ${BEGINS} ${NOT_FROM_PROXY} ${toOutbound}` },
  ];
}

/** Connections that ztunnel opens are remembered; their answers are routed by mark (table 100). */
function mangleTable(): XtTable {
  const restore = "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff";
  return podTable(
    "mangle",
    [{ label: "remember", text: `${FROM_PROXY} -j CONNMARK --set-xmark ${CONNECTION}` }],
    [{ label: "route-back", text: `-m connmark --mark ${CONNECTION} ${restore}` }],
  );
}

/** ztunnel's own DNS is tracked in a zone of its own: its tuples equal those of redirected queries. */
function rawTable(): XtTable {
  const zone = `-j CT --zone ${wire.DNS_ZONE}`;
  return podTable(
    "raw",
    [{ label: "dns-answer", text: `-p udp ${NOT_FROM_PROXY} -m udp --sport 53 ${zone}` }],
    [{ label: "dns-query", text: `-p udp ${FROM_PROXY} -m udp --dport 53 ${zone}` }],
  );
}

function podTable(name: TableName, prerouting: readonly Rule[], output: readonly Rule[]): XtTable {
  return {
    name,
    chains: [
      { name: PREROUTING_CHAIN, from: "PREROUTING", rules: prerouting },
      { name: OUTPUT_CHAIN, from: "OUTPUT", rules: output },
    ],
  };
}

/**
 * The node's side of the probe exemption: connections of the node's own sockets to addresses of `set`
 * get the probe address. `probeUid` narrows it to one user's sockets.
 */
export function hostXtTable(family: IpFamily, probeUid: number | undefined): XtTable {
  const origin = probeUid === undefined ? "--socket-exists" : `--uid-owner ${probeUid}`;
  const set = PROBE_SETS[family];
  const target = `-j SNAT --to-source ${PROBE[family]}`;
  const text = `-m owner ${origin} -p tcp -m set --match-set ${set} dst ${target}`;
  const rules = [{ label: "probe", text }];
  return { name: "nat", chains: [{ name: POSTROUTING_CHAIN, from: "POSTROUTING", rules }] };
}

export const PROBE_SETS = { 4: wire.PROBE_SET_IPV4, 6: wire.PROBE_SET_IPV6 } as const;
