// ztunnel's own resolv.conf(5): where queries are forwarded to, and, where one workload is all we serve,
// its search list.

import { readFileSync } from "node:fs";
import { type Ip, parseIp } from "@ambit/common/net/ip.ts";

/** As resolvers take them. */
const NAMESERVERS_MAX = 3;
/** glibc takes any number; a list longer than this is no search list. */
const SEARCH_DOMAINS_MAX = 32;

export interface ResolvConf {
  readonly nameservers: readonly Ip[];
  /** Lower case, no final dots. */
  readonly searchDomains: readonly string[];
}

/** What the file says; nothing when it cannot be read. */
export function readResolvConf(path = "/etc/resolv.conf"): ResolvConf {
  try {
    return parseResolvConf(readFileSync(path, "utf8"));
  } catch {
    return { nameservers: [], searchDomains: [] };
  }
}

/** `search` and `domain` replace each other: the last one counts. */
export function parseResolvConf(text: string): ResolvConf {
  const nameservers: Ip[] = [];
  let searchDomains: string[] = [];
  for (const line of text.split("\n")) {
    const [keyword, ...values] = line
      .replace(/[#;].*/, "")
      .trim()
      .split(/\s+/);
    const ip = keyword === "nameserver" ? parseIp(values[0] ?? "") : undefined;
    if (ip !== undefined) nameservers.push(ip);
    if (keyword === "search") searchDomains = values.map(plainName);
    if (keyword === "domain") searchDomains = values.slice(0, 1).map(plainName);
  }
  return {
    nameservers: nameservers.slice(0, NAMESERVERS_MAX),
    searchDomains: searchDomains.filter((name) => name !== "").slice(0, SEARCH_DOMAINS_MAX),
  };
}

function plainName(name: string): string {
  return name.toLowerCase().replace(/\.$/, "");
}
