// Gives hosts of ServiceEntries virtual addresses when their author gave none, so that traffic to a name can
// be told apart by address (Istio's ipallocate). Rewrites events: behind it, `status.addresses` is what holds.

import type { ServiceEntry } from "@ambit/api/resources/kinds.ts";
import { type Ip, parseIp } from "@ambit/common/net/ip.ts";
import { keyOf, keyText, type ResourceEvent } from "@ambit/common/resources/source.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { isOlder } from "../translate/age.ts";
import { meshHosts } from "../translate/service-entry.ts";
import type { VipPool } from "./vip-pool.ts";

const OPT_OUT_LABEL = "networking.istio.io/enable-autoallocate-ip";

interface Allocated {
  readonly value: Ip;
  readonly host: string;
}

/** An entry as it came, and what its hosts were given. */
interface Holder {
  readonly entry: ServiceEntry;
  readonly allocated: readonly Allocated[];
}

/** Entries without their addresses yet, by key. */
type Waiting = Map<string, ServiceEntry>;

export class VipAllocator {
  readonly #pools: readonly VipPool[];
  readonly #log: Logger;
  readonly #holders = new Map<string, Holder>();
  /** Allocated address to the key of its holder. */
  readonly #owners = new Map<Ip, string>();
  /** Addresses that authors gave, and how many entries have each. */
  readonly #declared = new Map<Ip, number>();

  /** A host gets one address of each pool. */
  constructor(pools: readonly VipPool[], log: Logger) {
    this.#pools = pools;
    this.#log = log;
  }

  /** The events with addresses filled in, and more for entries that lost an address to another's. */
  apply(events: readonly ResourceEvent[]): readonly ResourceEvent[] {
    const waiting: Waiting = new Map();
    for (const event of events) {
      const { kind, ...key } = event.type === "upsert" ? keyOf(event.resource) : event.key;
      if (kind === "ServiceEntry") this.#take(keyText({ kind, ...key }), event, waiting);
    }
    if (waiting.size === 0) return events;
    const others = events.filter(
      (event) => event.type !== "upsert" || !waiting.has(keyText(keyOf(event.resource))),
    );
    return [...others, ...this.#settle(waiting)];
  }

  #take(key: string, event: ResourceEvent, waiting: Waiting): void {
    const before = waiting.get(key) ?? this.#holders.get(key)?.entry;
    if (before !== undefined) this.#declare(before, -1);
    this.#free(key);
    waiting.delete(key);
    if (event.type !== "upsert" || event.resource.kind !== "ServiceEntry") return;
    waiting.set(key, event.resource);
    this.#declare(event.resource, 1);
  }

  /** Allocates for all that wait, the oldest first; who loses an address on the way waits again. */
  #settle(waiting: Waiting): ResourceEvent[] {
    for (const [ip, key] of this.#owners) if (this.#declared.has(ip)) this.#evict(key, waiting);
    const settled = new Map<string, ServiceEntry>();
    while (waiting.size > 0) {
      const round = [...waiting].sort(([, a], [, b]) => (isOlder(a, b) ? -1 : 1));
      waiting.clear();
      for (const [key, entry] of round) {
        const allocated = isEligible(entry) ? this.#allocate(key, entry, waiting) : [];
        this.#holders.set(key, { entry, allocated });
        settled.set(key, withAddresses(entry, allocated));
      }
    }
    return [...settled.values()].map((resource) => ({ type: "upsert", resource }));
  }

  #allocate(key: string, entry: ServiceEntry, waiting: Waiting): Allocated[] {
    return meshHosts(entry).flatMap((host) =>
      this.#pools.flatMap((pool) => {
        const value = this.#kept(entry, host, pool, waiting) ?? this.#next(entry, host, pool);
        if (value === undefined) {
          this.#log.warn("no virtual address is left for a host", { entry: key, host });
          return [];
        }
        this.#owners.set(value, key);
        return [{ value, host }];
      }),
    );
  }

  /** The address its status names, unless an older entry or an author has it. */
  #kept(entry: ServiceEntry, host: string, pool: VipPool, waiting: Waiting): Ip | undefined {
    for (const address of entry.status?.addresses ?? []) {
      const ip = parseIp(address.value);
      if (ip === undefined || (address.host ?? host) !== host) continue;
      if (!pool.contains(ip) || this.#declared.has(ip)) continue;
      const owner = this.#owners.get(ip);
      if (owner === undefined) return ip;
      const holder = this.#holders.get(owner);
      if (holder === undefined || !isOlder(entry, holder.entry)) continue;
      this.#evict(owner, waiting);
      return ip;
    }
    return undefined;
  }

  #next(entry: ServiceEntry, host: string, pool: VipPool): Ip | undefined {
    const name = `${entry.metadata.namespace}/${entry.metadata.name}/${host}`;
    return pool.find(name, (ip) => !this.#owners.has(ip) && !this.#declared.has(ip));
  }

  /** Takes an entry's addresses; it waits for others, its status being what it held. */
  #evict(key: string, waiting: Waiting): void {
    const holder = this.#holders.get(key);
    if (holder === undefined) return;
    this.#free(key);
    waiting.set(key, withAddresses(holder.entry, holder.allocated));
  }

  #free(key: string): void {
    for (const { value } of this.#holders.get(key)?.allocated ?? []) this.#owners.delete(value);
    this.#holders.delete(key);
  }

  #declare({ spec }: ServiceEntry, change: 1 | -1): void {
    for (const text of spec.addresses ?? []) {
      const ip = parseIp(text);
      if (ip === undefined) continue;
      const count = (this.#declared.get(ip) ?? 0) + change;
      if (count === 0) this.#declared.delete(ip);
      else this.#declared.set(ip, count);
    }
  }
}

/** Without resolution the addresses of its author, or of the client, are what counts. */
function isEligible({ spec, metadata }: ServiceEntry): boolean {
  const declared = (spec.addresses ?? []).length > 0;
  return !declared && spec.resolution !== "NONE" && metadata.labels?.[OPT_OUT_LABEL] !== "false";
}

function withAddresses(entry: ServiceEntry, allocated: readonly Allocated[]): ServiceEntry {
  if (allocated.length === 0 && entry.status?.addresses === undefined) return entry;
  return {
    ...entry,
    status: { ...entry.status, addresses: allocated.map((each) => ({ ...each })) },
  };
}
