// Local answers: what the mesh itself knows about a name (ztunnel §3.6). Everything else is forwarded.

import { type Ip, type IpFamily, ipFamily } from "@ambit/common/net/ip.ts";
import type { Config } from "../config.ts";
import type { Random } from "../state/endpoint-choice.ts";
import type { MeshState } from "../state/mesh-state.ts";
import type { StoredService } from "../state/service-store.ts";
import type { Workload } from "../state/workload.ts";
import { nameCandidates, podSearchDomains } from "./names.ts";

export interface LocalAnswer {
  /** Empty: the name is ours but has no such record (NODATA). */
  readonly addresses: readonly Ip[];
  /** The name the records belong to when it is not the query: a CNAME leads there. */
  readonly canonicalName?: string;
}

export interface DnsQuery {
  /** Lower case, no final dot. */
  readonly name: string;
  readonly family: IpFamily;
  readonly client: Workload;
  readonly clusterDomain: string;
  /** The client's search list. */
  readonly searchDomains: readonly string[];
  /** Whose service it is when neither the client's namespace nor a canonical one decides. */
  readonly preferredNamespace: string | undefined;
  /** False: we have no IPv6 for anyone. */
  readonly ipv6: boolean;
  readonly random: Random;
}

/** All but what is asked, for a client whose search list is that of a pod. */
export function lookupSettings(
  { clusterDomain, preferredServiceNamespace, ipv6 }: Config,
  client: Workload,
  random: Random,
): Omit<DnsQuery, "name" | "family"> {
  return {
    client,
    clusterDomain,
    searchDomains: podSearchDomains(client.namespace, clusterDomain),
    preferredNamespace: preferredServiceNamespace,
    ipv6,
    random,
  };
}

/** undefined: not ours to answer. */
export function resolveLocally(state: MeshState, query: DnsQuery): LocalAnswer | undefined {
  const { name, client, clusterDomain, searchDomains, preferredNamespace } = query;
  const scope = { clientNamespace: client.namespace, clusterDomain, searchDomains };
  const isCandidate = (found: StoredService) => isAnswerable(found, clusterDomain);
  for (const candidate of nameCandidates(name, scope)) {
    const found = state.services.byHostname(candidate.name, client.namespace, {
      preferredNamespace,
      isCandidate,
    });
    if (found === undefined) continue;
    const addresses = shuffle(addressesOf(found, query), query.random);
    const { strippedTo, wildcard } = candidate;
    return strippedTo === undefined || wildcard
      ? { addresses }
      : { addresses, canonicalName: strippedTo };
  }
  return undefined;
}

/** A service counts with VIPs, or as a Kubernetes headless one. */
function isAnswerable({ service }: StoredService, clusterDomain: string): boolean {
  return service.vips.length > 0 || service.hostname.endsWith(`.svc.${clusterDomain}`);
}

function addressesOf(
  { service, endpoints }: StoredService,
  { client, family, ipv6 }: DnsQuery,
): Ip[] {
  if (family === 6 && !ipv6) return [];
  if (service.ipFamilies.length > 0 && !service.ipFamilies.includes(family)) return [];
  if (service.vips.length > 0) {
    return service.vips
      .filter(({ network, ip }) => network === client.network && ipFamily(ip) === family)
      .map(({ ip }) => ip);
  }
  return [...endpoints.values()].flatMap(({ workload }) => {
    if (workload.network !== client.network) return [];
    return workload.addresses.find((ip) => ipFamily(ip) === family) ?? [];
  });
}

function shuffle<T>(items: T[], random: Random): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [items[i], items[j]] = [items[j]!, items[i]!];
  }
  return items;
}
