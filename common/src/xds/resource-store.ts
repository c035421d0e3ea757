// The resources the delta server serves, by type and name, with the look-ups on-demand clients need.
// Owns the only copy of each serialized resource; tells listeners what each change replaced.

import type { MeshSnapshotSink, XdsChange, XdsResource } from "./resource-type.ts";
import { frameAll } from "./response-encoder.ts";

/** What changed, as names and what each was before (undefined: not there). */
export interface StoreChange {
  readonly typeUrl: string;
  readonly before: ReadonlyMap<string, XdsResource | undefined>;
}

export type StoreListener = (change: StoreChange) => void;

export class ResourceStore implements MeshSnapshotSink {
  readonly #types: ReadonlyMap<string, TypeStore>;
  readonly #listeners = new Set<StoreListener>();
  #epoch = 0;

  constructor(typeUrls: readonly string[]) {
    this.#types = new Map(typeUrls.map((typeUrl) => [typeUrl, new TypeStore(typeUrl)]));
  }

  /** Counts the changes so far, of all types. */
  get epoch(): number {
    return this.#epoch;
  }

  /** undefined for a type that is not served. */
  type(typeUrl: string): TypeStore | undefined {
    return this.#types.get(typeUrl);
  }

  get typeUrls(): readonly string[] {
    return [...this.#types.keys()];
  }

  /** Applies removals, then upserts; equal versions are no change. Listeners run before it returns. */
  apply({ typeUrl, upserts, removed }: XdsChange): void {
    const type = this.#types.get(typeUrl);
    if (type === undefined) throw new Error(`resources of a type that is not served: ${typeUrl}`);
    const before = new Map<string, XdsResource | undefined>();
    for (const name of removed) {
      const old = type.delete(name);
      if (old !== undefined) before.set(name, old);
    }
    for (const resource of upserts) {
      const first = before.get(resource.name);
      const old = type.put(resource);
      if ((old ?? first)?.version === resource.version) before.delete(resource.name);
      else before.set(resource.name, first ?? old);
    }
    if (before.size === 0) return;
    this.#epoch++;
    for (const listener of this.#listeners) listener({ typeUrl, before });
  }

  /** Returns the function that ends it. */
  listen(listener: StoreListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}

/** Resources of one type. */
export class TypeStore {
  readonly #typeUrl: string;
  /** Everything, as in a response; made when it is first asked for after a change. */
  #framed: Buffer | undefined;
  readonly #resources = new Map<string, XdsResource>();
  readonly #byAlias = new MultiMap();
  readonly #byParent = new MultiMap();
  readonly #byNode = new MultiMap();

  constructor(typeUrl: string) {
    this.#typeUrl = typeUrl;
  }

  /** All resources, framed once for all clients that get them all. */
  get framed(): Buffer {
    return (this.#framed ??= frameAll(this.#typeUrl, this.#resources.values()));
  }

  get size(): number {
    return this.#resources.size;
  }

  get(name: string): XdsResource | undefined {
    return this.#resources.get(name);
  }

  values(): Iterable<XdsResource> {
    return this.#resources.values();
  }

  /** What a client gets that asks for `key`: by name, else by alias. */
  *find(key: string): Generator<XdsResource> {
    const named = this.#resources.get(key);
    if (named !== undefined) yield named;
    else yield* this.#all(this.#byAlias.get(key));
  }

  /** Resources that name `parent` as one of theirs. */
  *childrenOf(parent: string): Generator<XdsResource> {
    yield* this.#all(this.#byParent.get(parent));
  }

  *onNode(node: string): Generator<XdsResource> {
    yield* this.#all(this.#byNode.get(node));
  }

  /** Returns what it replaced. */
  put(resource: XdsResource): XdsResource | undefined {
    const old = this.#resources.get(resource.name);
    if (old?.version === resource.version) return old;
    this.#framed = undefined;
    if (old !== undefined) this.#unindex(old);
    this.#resources.set(resource.name, resource);
    for (const alias of resource.aliases) this.#byAlias.add(alias, resource.name);
    for (const parent of resource.parents ?? []) this.#byParent.add(parent, resource.name);
    if (resource.node) this.#byNode.add(resource.node, resource.name);
    return old;
  }

  delete(name: string): XdsResource | undefined {
    const old = this.#resources.get(name);
    if (old === undefined) return undefined;
    this.#framed = undefined;
    this.#resources.delete(name);
    this.#unindex(old);
    return old;
  }

  #unindex(resource: XdsResource): void {
    for (const alias of resource.aliases) this.#byAlias.delete(alias, resource.name);
    for (const parent of resource.parents ?? []) this.#byParent.delete(parent, resource.name);
    if (resource.node) this.#byNode.delete(resource.node, resource.name);
  }

  *#all(names: Iterable<string>): Generator<XdsResource> {
    for (const name of names) {
      const resource = this.#resources.get(name);
      if (resource !== undefined) yield resource;
    }
  }
}

/** Key to names; most keys have one, so a set is made only for the second. */
class MultiMap {
  readonly #map = new Map<string, string | Set<string>>();

  get(key: string): Iterable<string> {
    const entry = this.#map.get(key);
    return typeof entry === "string" ? [entry] : (entry ?? []);
  }

  add(key: string, name: string): void {
    const entry = this.#map.get(key);
    if (entry === undefined) this.#map.set(key, name);
    else if (typeof entry !== "string") entry.add(name);
    else if (entry !== name) this.#map.set(key, new Set([entry, name]));
  }

  delete(key: string, name: string): void {
    const entry = this.#map.get(key);
    if (entry === name) this.#map.delete(key);
    else if (typeof entry === "object" && entry.delete(name) && entry.size === 0) {
      this.#map.delete(key);
    }
  }
}
