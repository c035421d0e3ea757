// Services by key, hostname and VIP, with their endpoints. Endpoints that come before their service
// are staged; health is judged when an endpoint enters, not when it is picked (ztunnel §3.3, §3.4).

import { cidrContains } from "@ambit/common/net/cidr.ts";
import type { Endpoint, Service } from "./service.ts";
import { serviceKey } from "./service.ts";
import type { NetworkAddress, Workload, WorkloadUid } from "./workload.ts";

/** A service as stored: the parsed resource and what workloads add to it. */
export interface StoredService {
  readonly service: Service;
  readonly endpoints: ReadonlyMap<WorkloadUid, Endpoint>;
}

interface Entry extends StoredService {
  readonly endpoints: Map<WorkloadUid, Endpoint>;
}

interface Staged extends Endpoint {
  readonly healthy: boolean;
}

export class ServiceStore {
  readonly #byKey = new Map<string, Entry>();
  readonly #byHostname = new Map<string, Entry[]>();
  readonly #byVip = new Map<string, Entry[]>();
  readonly #withCidrs = new Set<Entry>();
  readonly #staged = new Map<string, Map<WorkloadUid, Staged>>();

  get size(): number {
    return this.#byKey.size;
  }

  get all(): Iterable<StoredService> {
    return this.#byKey.values();
  }

  /** Services whose endpoints wait for them, for the config dump. */
  get stagedKeys(): Iterable<string> {
    return this.#staged.keys();
  }

  byKey(key: string): StoredService | undefined {
    return this.#byKey.get(key);
  }

  /** Inserts or replaces; endpoints known so far are kept or taken in as the health policy allows. */
  upsert(service: Service): void {
    const key = serviceKey(service);
    const before = this.#byKey.get(key);
    if (before !== undefined) this.#unindex(before);
    const endpoints = before?.endpoints ?? new Map<WorkloadUid, Endpoint>();
    const entry: Entry = { service, endpoints };
    for (const [uid, { healthy, workloadUid, ports }] of this.#staged.get(key) ?? []) {
      if (healthy || service.loadBalancer.allowUnhealthy)
        endpoints.set(uid, { workloadUid, ports });
    }
    this.#staged.delete(key);
    this.#index(entry);
  }

  /** Removes a service; its endpoints are staged again, in case it returns. */
  remove(key: string): boolean {
    const entry = this.#byKey.get(key);
    if (entry === undefined) return false;
    this.#unindex(entry);
    if (entry.endpoints.size > 0) {
      const staged = new Map<WorkloadUid, Staged>();
      for (const [uid, endpoint] of entry.endpoints)
        staged.set(uid, { ...endpoint, healthy: true });
      this.#staged.set(key, staged);
    }
    return true;
  }

  addEndpoints(workload: Workload): void {
    const { uid, healthy } = workload;
    for (const [key, ports] of workload.services) {
      const entry = this.#byKey.get(key);
      if (entry === undefined) {
        const staged = this.#staged.getOrInsertComputed(key, () => new Map<WorkloadUid, Staged>());
        staged.set(uid, { workloadUid: uid, ports, healthy });
      } else if (healthy || entry.service.loadBalancer.allowUnhealthy) {
        entry.endpoints.set(uid, { workloadUid: uid, ports });
      } else entry.endpoints.delete(uid);
    }
  }

  removeEndpoints(workload: Workload): void {
    for (const key of workload.services.keys()) {
      this.#byKey.get(key)?.endpoints.delete(workload.uid);
      const staged = this.#staged.get(key);
      staged?.delete(workload.uid);
      if (staged?.size === 0) this.#staged.delete(key);
    }
  }

  /** The best visible service for an address: exact VIPs first, then CIDRs (ztunnel §3.3). */
  byAddress(address: NetworkAddress, clientNamespace: string): StoredService | undefined {
    const exact = this.#byVip.get(vipKey(address)) ?? [];
    return best(exact, clientNamespace) ?? this.#byCidr(address, clientNamespace);
  }

  /** The best visible service for a hostname. */
  byHostname(
    hostname: string,
    clientNamespace: string,
    preferredNamespace?: string,
  ): StoredService | undefined {
    return best(this.#byHostname.get(hostname) ?? [], clientNamespace, preferredNamespace);
  }

  /** In the client's namespace, then longest prefix, then canonical: compared in that order. */
  #byCidr(address: NetworkAddress, clientNamespace: string): StoredService | undefined {
    let found: Entry | undefined;
    let rank: readonly number[] = [];
    for (const entry of this.#withCidrs) {
      if (!visible(entry, clientNamespace)) continue;
      for (const { network, cidr } of entry.service.cidrVips) {
        if (network !== address.network || !cidrContains(cidr, address.ip)) continue;
        const local = Number(entry.service.namespace === clientNamespace);
        const candidate = [local, cidr.prefixLength, Number(entry.service.canonical)];
        if (found === undefined || compare(candidate, rank) > 0) {
          found = entry;
          rank = candidate;
        }
      }
    }
    return found;
  }

  #index(entry: Entry): void {
    const { service } = entry;
    this.#byKey.set(serviceKey(service), entry);
    replaceOrAdd(this.#byHostname, service.hostname, entry);
    for (const vip of service.vips) replaceOrAdd(this.#byVip, vipKey(vip), entry);
    if (service.cidrVips.length > 0) this.#withCidrs.add(entry);
  }

  #unindex(entry: Entry): void {
    const { service } = entry;
    this.#byKey.delete(serviceKey(service));
    drop(this.#byHostname, service.hostname, entry);
    for (const vip of service.vips) drop(this.#byVip, vipKey(vip), entry);
    this.#withCidrs.delete(entry);
  }
}

function vipKey({ network, ip }: NetworkAddress): string {
  return `${network}/${ip}`;
}

function visible({ service }: StoredService, clientNamespace: string): boolean {
  return !service.namespacePrivate || service.namespace === clientNamespace;
}

/** Client's namespace, then canonical, then the preferred namespace, then the first. */
function best(
  entries: readonly Entry[],
  clientNamespace: string,
  preferredNamespace?: string,
): Entry | undefined {
  const seen = entries.filter((entry) => visible(entry, clientNamespace));
  return (
    seen.find(({ service }) => service.namespace === clientNamespace) ??
    seen.find(({ service }) => service.canonical) ??
    seen.find(({ service }) => service.namespace === preferredNamespace) ??
    seen[0]
  );
}

/** At most one entry per namespace: the later one replaces the earlier (ztunnel §3.3). */
function replaceOrAdd(index: Map<string, Entry[]>, key: string, entry: Entry): void {
  const others = (index.get(key) ?? []).filter(
    ({ service }) => service.namespace !== entry.service.namespace,
  );
  index.set(key, [...others, entry]);
}

function drop(index: Map<string, Entry[]>, key: string, entry: Entry): void {
  const rest = (index.get(key) ?? []).filter((other) => other !== entry);
  if (rest.length === 0) index.delete(key);
  else index.set(key, rest);
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i]! - (b[i] ?? 0);
  return 0;
}
