// Services by key, hostname and VIP, with their endpoints. Endpoints that come before their service
// are staged; health is judged when an endpoint enters, not when it is picked (ztunnel §3.3, §3.4).

import { CidrMap } from "@ambit/common/net/cidr-map.ts";
import { AddressIndex } from "./address-index.ts";
import type { Endpoint, Service } from "./service.ts";
import { serviceKey } from "./service.ts";
import type { NetworkAddress, Workload, WorkloadUid } from "./workload.ts";

/** A service as stored: the parsed resource and what workloads add to it. */
export interface StoredService {
  readonly service: Service;
  readonly endpoints: ReadonlyMap<WorkloadUid, Endpoint>;
}

/** What a look-up by hostname may ask besides. */
export interface HostnameWish {
  readonly preferredNamespace?: string | undefined;
  readonly isCandidate?: (service: StoredService) => boolean;
}

interface Entry extends StoredService {
  readonly endpoints: Endpoints;
}

type Endpoints = Map<WorkloadUid, Endpoint>;
type CidrVip = Service["cidrVips"][number];

export class ServiceStore {
  readonly #byKey = new Map<string, Entry>();
  readonly #byHostname = new Map<string, readonly Entry[]>();
  readonly #byVip = new AddressIndex<Entry>();
  /** By network. */
  readonly #byCidr = new Map<string, CidrMap<readonly Entry[]>>();
  readonly #staged = new Map<string, Endpoints>();

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
    const endpoints: Endpoints = before?.endpoints ?? new Map();
    for (const [uid, endpoint] of this.#staged.get(key) ?? []) {
      if (isAdmitted(service, endpoint.workload)) endpoints.set(uid, endpoint);
    }
    this.#staged.delete(key);
    this.#index({ service, endpoints });
  }

  /** Removes a service; its endpoints are staged again, in case it returns. */
  remove(key: string): boolean {
    const entry = this.#byKey.get(key);
    if (entry === undefined) return false;
    this.#unindex(entry);
    if (entry.endpoints.size > 0) this.#staged.set(key, entry.endpoints);
    return true;
  }

  addEndpoints(workload: Workload): void {
    const { uid } = workload;
    for (const [key, ports] of workload.services) {
      const entry = this.#byKey.get(key);
      if (entry === undefined) {
        const staged = this.#staged.getOrInsertComputed(key, newEndpoints);
        staged.set(uid, { workload, ports });
      } else if (isAdmitted(entry.service, workload)) entry.endpoints.set(uid, { workload, ports });
      else entry.endpoints.delete(uid);
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

  /**
   * The best service for an address that the client's namespace may see: exact VIPs first, then CIDRs
   * (ztunnel §3.3). Without a client everything is seen.
   */
  byAddress(
    address: NetworkAddress,
    clientNamespace: string | undefined,
  ): StoredService | undefined {
    return (
      best(this.#byVip.get(address), clientNamespace) ?? this.#bestByCidr(address, clientNamespace)
    );
  }

  /** The best visible service for a hostname, of those that `isCandidate` when that is asked. */
  byHostname(
    hostname: string,
    clientNamespace: string | undefined,
    { preferredNamespace, isCandidate }: HostnameWish = {},
  ): StoredService | undefined {
    const known = this.#byHostname.get(hostname) ?? [];
    const entries = isCandidate === undefined ? known : known.filter(isCandidate);
    return best(entries, clientNamespace, preferredNamespace);
  }

  /** In the client's namespace, then longest prefix, then canonical: compared in that order. */
  #bestByCidr(
    { network, ip }: NetworkAddress,
    clientNamespace: string | undefined,
  ): StoredService | undefined {
    let found: Entry | undefined;
    const isOwn = ({ service }: Entry) => service.namespace === clientNamespace;
    this.#byCidr.get(network)?.forEachMatch(ip, (entries) => {
      const candidate = best(entries, clientNamespace);
      if (candidate === undefined) return;
      if (found === undefined || isOwn(candidate) || !isOwn(found)) found = candidate;
    });
    return found;
  }

  #index(entry: Entry): void {
    const { service } = entry;
    this.#byKey.set(serviceKey(service), entry);
    const sameName = this.#byHostname.get(service.hostname) ?? [];
    this.#byHostname.set(service.hostname, [...othersThan(sameName, entry), entry]);
    for (const vip of service.vips) {
      for (const rival of this.#byVip.get(vip))
        if (sameNamespace(rival, entry)) this.#byVip.remove(vip, rival);
      this.#byVip.add(vip, entry);
    }
    for (const vip of service.cidrVips) this.#indexCidr(vip, entry);
  }

  #unindex(entry: Entry): void {
    const { service } = entry;
    this.#byKey.delete(serviceKey(service));
    const rest = (this.#byHostname.get(service.hostname) ?? []).filter((other) => other !== entry);
    if (rest.length > 0) this.#byHostname.set(service.hostname, rest);
    else this.#byHostname.delete(service.hostname);
    for (const vip of service.vips) this.#byVip.remove(vip, entry);
    for (const vip of service.cidrVips) this.#unindexCidr(vip, entry);
  }

  #indexCidr({ network, cidr }: CidrVip, entry: Entry): void {
    const blocks = this.#byCidr.getOrInsertComputed(network, () => new CidrMap());
    blocks.set(cidr, [...othersThan(blocks.get(cidr) ?? [], entry), entry]);
  }

  #unindexCidr({ network, cidr }: CidrVip, entry: Entry): void {
    const blocks = this.#byCidr.get(network);
    const rest = blocks?.get(cidr)?.filter((other) => other !== entry) ?? [];
    if (rest.length > 0) blocks?.set(cidr, rest);
    else blocks?.delete(cidr);
    if (blocks?.size === 0) this.#byCidr.delete(network);
  }
}

function newEndpoints(): Endpoints {
  return new Map();
}

function isAdmitted({ loadBalancer }: Service, { healthy }: Workload): boolean {
  return healthy || loadBalancer.allowUnhealthy;
}

function isVisible({ service }: StoredService, clientNamespace: string | undefined): boolean {
  return (
    !service.namespacePrivate ||
    clientNamespace === undefined ||
    service.namespace === clientNamespace
  );
}

/** Client's namespace, then canonical, then the preferred namespace, then the first. */
function best(
  entries: readonly Entry[],
  clientNamespace: string | undefined,
  preferredNamespace?: string,
): Entry | undefined {
  let found: Entry | undefined;
  let foundRank = -1;
  for (const entry of entries) {
    if (!isVisible(entry, clientNamespace)) continue;
    const rank = namespaceRank(entry.service, clientNamespace, preferredNamespace);
    if (rank <= foundRank) continue;
    found = entry;
    foundRank = rank;
  }
  return found;
}

function namespaceRank(
  { namespace, canonical }: Service,
  clientNamespace: string | undefined,
  preferredNamespace: string | undefined,
): number {
  if (namespace === clientNamespace) return 3;
  if (canonical) return 2;
  return namespace === preferredNamespace ? 1 : 0;
}

/** At most one entry per namespace: the later one replaces the earlier (ztunnel §3.3). */
function othersThan(entries: readonly Entry[], entry: Entry): Entry[] {
  return entries.filter((other) => !sameNamespace(other, entry));
}

function sameNamespace(a: Entry, b: Entry): boolean {
  return a.service.namespace === b.service.namespace;
}
