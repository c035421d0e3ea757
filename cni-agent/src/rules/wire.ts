// The numbers and names that agent, ztunnel and Istio's own parts agree on (Istio's cni/pkg/iptables).

import type { Ip } from "@ambit/common/net/ip.ts";

export const OUTBOUND_PORT = 15001;
export const INBOUND_PORT = 15006;
export const HBONE_PORT = 15008;
export const DNS_PORT = 15053;

/** On every socket that ztunnel opens in a pod. */
export const PROXY_MARK = 0x539;
/** On connections that ztunnel opened with the client's address, and on their answers. */
export const CONNECTION_MARK = 0x111;
/** The bits of a mark that are ours; the others are left alone. */
export const MARK_MASK = 0xfff;

/** One of our marks as `ip`, `ss` and iptables read and print it: value and mask. */
export function maskedMark(mark: number): string {
  return `${hex(mark)}/${hex(MARK_MASK)}`;
}

/** A number as these programs and nft print marks. */
export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/** Answers to spoofed connections are routed to lo by this table. */
export const ROUTE_TABLE = 100;
export const RULE_PRIORITY = 32764;

/** Where kubelet's probes seem to come from: the pod lets this address past ztunnel. */
export const PROBE_IPV4 = "169.254.7.127" as Ip;
export const PROBE_IPV6 = "fd16:9254:7127:1337:ffff:ffff:ffff:ffff" as Ip;

/** Keeps ztunnel's own DNS apart from the conntrack entries of redirected DNS. */
export const DNS_ZONE = 1;

export const NAT_TABLE = "istio-ambient-nat";
export const MANGLE_TABLE = "istio-ambient-mangle";
export const RAW_TABLE = "istio-ambient-raw";

export const PROBE_SET_IPV4 = "istio-inpod-probes-v4";
export const PROBE_SET_IPV6 = "istio-inpod-probes-v6";
