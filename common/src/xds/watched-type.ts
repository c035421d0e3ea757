// What one client wants of one type and does not have yet. Pure bookkeeping, no gRPC: requests and store
// changes go in, the next difference comes out. Pending changes coalesce by name, so a slow client costs
// at most one entry per resource of the mesh.

import type { DeltaDiscoveryRequest } from "@ambit/api/gen/envoy/discovery_pb.ts";
import { SUBSCRIBED_NAMES_MAX } from "./limits.ts";
import type { TypeStore } from "./resource-store.ts";
import type { XdsResource } from "./resource-type.ts";

/** The next thing to send. */
export interface Difference {
  readonly upserts: XdsResource[];
  readonly removed: string[];
}

export type SubscriptionRequest = Pick<
  DeltaDiscoveryRequest,
  "resourceNamesSubscribe" | "resourceNamesUnsubscribe" | "initialResourceVersions"
>;

export interface WatchOptions {
  /** Resources of this node are sent without being asked for. */
  readonly node?: string | undefined;
  /** Everything is sent, whatever is asked for. */
  readonly alwaysAll?: boolean;
}

const EVERYTHING = "*";

/** Thrown when a client asks for more names than the limit. */
export class TooManyNamesError extends Error {
  override readonly name = "TooManyNamesError";
}

export class WatchedType {
  readonly #store: TypeStore;
  readonly #node: string | undefined;
  readonly #alwaysAll: boolean;
  #wildcard: boolean;
  /** Names and aliases an on-demand client asked for. */
  readonly #keys = new Set<string>();
  /** Of those, the ones not answered yet. */
  readonly #unanswered = new Set<string>();
  /** On demand only: what was sent, name to version. A wildcard client's names are not kept. */
  readonly #held = new Map<string, string>();
  /** What changed since the last difference, with the version the client has (undefined: none). */
  readonly #changed = new Map<string, string | undefined>();
  /** What the client declared when it connected, until the first difference. */
  #declared: ReadonlyMap<string, string> | undefined;

  constructor(store: TypeStore, first: SubscriptionRequest, options: WatchOptions = {}) {
    const subscribe = first.resourceNamesSubscribe;
    const unsubscribe = first.resourceNamesUnsubscribe;
    this.#store = store;
    this.#node = options.node;
    this.#alwaysAll = options.alwaysAll ?? false;
    this.#wildcard =
      this.#alwaysAll ||
      subscribe.length === 0 ||
      (subscribe.includes(EVERYTHING) && !unsubscribe.includes(EVERYTHING));
    this.#declared = new Map(Object.entries(first.initialResourceVersions));
    this.#subscribe(subscribe);
    if (!this.#wildcard) this.#subscribe(this.#declared.keys());
    this.#unsubscribe(unsubscribe);
  }

  get wildcard(): boolean {
    return this.#wildcard;
  }

  /** How many resources the client holds once it is up to date. */
  get heldCount(): number {
    return this.#wildcard ? this.#store.size : this.#held.size;
  }

  get pending(): boolean {
    return this.#declared !== undefined || this.#changed.size > 0 || this.#unanswered.size > 0;
  }

  /** A later request's names; an acknowledgement may carry some too. Throws TooManyNamesError. */
  update({ resourceNamesSubscribe, resourceNamesUnsubscribe }: SubscriptionRequest): void {
    if (resourceNamesSubscribe.includes(EVERYTHING) && !this.#wildcard) this.#becomeWildcard();
    this.#subscribe(resourceNamesSubscribe);
    this.#unsubscribe(resourceNamesUnsubscribe);
  }

  /** A resource was added, replaced or removed; `before` is what it was. */
  noteChange(name: string, before: XdsResource | undefined): void {
    if (this.#declared !== undefined || this.#changed.has(name)) {
      this.#dropIfNeverSeen(name);
      return;
    }
    if (this.#wildcard) this.#changed.set(name, before?.version);
    else if (this.#wants(name)) this.#changed.set(name, this.#held.get(name));
  }

  /** The difference between what the client has and the store; counts as sent. */
  take(): Difference {
    const difference = this.#wildcard ? this.#takeWildcard() : this.#takeOnDemand();
    this.#declared = undefined;
    this.#changed.clear();
    this.#unanswered.clear();
    return difference;
  }

  /** Came and went between two differences: nothing to tell. */
  #dropIfNeverSeen(name: string): void {
    const absent = this.#changed.has(name) && this.#changed.get(name) === undefined;
    if (absent && this.#store.get(name) === undefined) this.#changed.delete(name);
  }

  #takeWildcard(): Difference {
    return this.#declared === undefined ? this.#changes() : this.#fromDeclared(this.#declared);
  }

  #fromDeclared(declared: ReadonlyMap<string, string>): Difference {
    const difference: Difference = { upserts: [], removed: [] };
    for (const resource of this.#store.values()) {
      if (declared.get(resource.name) !== resource.version) difference.upserts.push(resource);
    }
    for (const name of declared.keys()) {
      if (this.#store.get(name) === undefined) difference.removed.push(name);
    }
    return difference;
  }

  #changes(): Difference {
    const difference: Difference = { upserts: [], removed: [] };
    for (const [name, version] of this.#changed) {
      const resource = this.#store.get(name);
      if (resource === undefined) difference.removed.push(name);
      else if (resource.version !== version) difference.upserts.push(resource);
    }
    return difference;
  }

  #takeOnDemand(): Difference {
    if (this.#declared !== undefined) this.#adoptDeclared(this.#declared);
    const removed: string[] = [];
    const wanted = new Map<string, XdsResource>();
    for (const key of this.#unanswered) {
      const found = [...this.#store.find(key)];
      if (found.length === 0) removed.push(key);
      for (const resource of found) this.#addWithChildren(wanted, resource);
    }
    for (const name of this.#changed.keys()) {
      const resource = this.#store.get(name);
      if (resource !== undefined) this.#addWithChildren(wanted, resource);
      else if (this.#held.delete(name) && !removed.includes(name)) removed.push(name);
    }
    const upserts = [...wanted.values()].filter((resource) => this.#hold(resource));
    return { upserts, removed };
  }

  /** After a reconnect: what the client still has in the current version is not sent again. */
  #adoptDeclared(declared: ReadonlyMap<string, string>): void {
    for (const [name, version] of declared) if (version !== "") this.#held.set(name, version);
    for (const name of declared.keys()) {
      if (this.#store.get(name) === undefined) this.#held.delete(name);
    }
    if (this.#node === undefined) return;
    for (const { name } of this.#store.onNode(this.#node)) this.#changed.set(name, undefined);
  }

  /** A service comes with its workloads. */
  #addWithChildren(wanted: Map<string, XdsResource>, resource: XdsResource): void {
    wanted.set(resource.name, resource);
    if (this.#held.has(resource.name) && !this.#unanswered.has(resource.name)) return;
    for (const child of this.#store.childrenOf(resource.name)) wanted.set(child.name, child);
  }

  /** Notes that it is sent; false when the client has this version. */
  #hold({ name, version }: XdsResource): boolean {
    if (this.#held.get(name) === version) return false;
    this.#held.set(name, version);
    return true;
  }

  #wants(name: string): boolean {
    if (this.#held.has(name)) return true;
    const resource = this.#store.get(name);
    return resource !== undefined && this.#isWanted(resource);
  }

  #isWanted({ name, aliases, parents, node }: XdsResource): boolean {
    return (
      this.#keys.has(name) ||
      (node !== undefined && node === this.#node) ||
      aliases.some((alias) => this.#keys.has(alias)) ||
      (parents ?? []).some((parent) => this.#keys.has(parent) || this.#held.has(parent))
    );
  }

  #subscribe(names: Iterable<string>): void {
    if (this.#wildcard) return;
    for (const name of names) {
      if (name === EVERYTHING) continue;
      this.#keys.add(name);
      this.#unanswered.add(name);
      // Asking again means that the client may have dropped it.
      if (this.#declared !== undefined) continue;
      for (const resource of this.#store.find(name)) this.#held.delete(resource.name);
    }
    if (this.#keys.size > SUBSCRIBED_NAMES_MAX) {
      throw new TooManyNamesError(`more than ${SUBSCRIBED_NAMES_MAX} names subscribed`);
    }
  }

  #unsubscribe(names: readonly string[]): void {
    if (names.includes(EVERYTHING) && this.#wildcard && !this.#alwaysAll) this.#leaveWildcard();
    for (const name of names) {
      this.#keys.delete(name);
      this.#unanswered.delete(name);
      if (!this.#wildcard) this.#release(name);
    }
  }

  /** Forgets what only this key kept. */
  #release(key: string): void {
    const found = [...this.#store.find(key)];
    for (const resource of found) {
      if (!this.#isWanted(resource)) this.#held.delete(resource.name);
    }
    for (const child of found.flatMap(({ name }) => [...this.#store.childrenOf(name)])) {
      if (!this.#isWanted(child)) this.#held.delete(child.name);
    }
  }

  /** Everything that the client does not hold in its current version is new to it. */
  #becomeWildcard(): void {
    this.#wildcard = true;
    this.#declared = new Map([...(this.#declared ?? []), ...this.#held]);
    this.#keys.clear();
    this.#unanswered.clear();
    this.#held.clear();
    this.#changed.clear();
  }

  /** From now on only what is asked for; what the client already has is its own to drop. */
  #leaveWildcard(): void {
    this.#wildcard = false;
    this.#changed.clear();
  }
}
