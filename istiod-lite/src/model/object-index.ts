// The objects of one kind, by key and by namespace. Replacing hands back what was there before.

import type { Resource } from "@ambit/api/resources/kinds.ts";
import { assert } from "@ambit/common/process/assert.ts";
import { keyOf, keyText, type ResourceKey } from "@ambit/common/resources/source.ts";

export class ObjectIndex<T extends Resource> {
  readonly #isOfKind: (resource: Resource) => resource is T;
  readonly #byKey = new Map<string, T>();
  readonly #byNamespace = new Map<string, Map<string, T>>();

  constructor(isOfKind: (resource: Resource) => resource is T) {
    this.#isOfKind = isOfKind;
  }

  get all(): Iterable<T> {
    return this.#byKey.values();
  }

  keys(): Iterable<string> {
    return this.#byKey.keys();
  }

  get size(): number {
    return this.#byKey.size;
  }

  get(key: string): T | undefined {
    return this.#byKey.get(key);
  }

  inNamespace(namespace: string): Iterable<T> {
    return this.#byNamespace.get(namespace)?.values() ?? [];
  }

  /** In one namespace, or in all when none is given. */
  within(namespace: string | undefined): Iterable<T> {
    return namespace === undefined ? this.all : this.inNamespace(namespace);
  }

  /** Returns the object that was replaced. It must be of the index's kind. */
  put(object: Resource): T | undefined {
    assert(this.#isOfKind(object), "an index holds one kind");
    const key = keyText(keyOf(object));
    const before = this.#byKey.get(key);
    this.#byKey.set(key, object);
    const namespace = object.metadata.namespace ?? "";
    this.#byNamespace.getOrInsertComputed(namespace, () => new Map<string, T>()).set(key, object);
    return before;
  }

  /** Returns the object that was removed. */
  delete(key: ResourceKey): T | undefined {
    const text = keyText(key);
    const before = this.#byKey.get(text);
    this.#byKey.delete(text);
    const siblings = this.#byNamespace.get(key.namespace);
    siblings?.delete(text);
    if (siblings?.size === 0) this.#byNamespace.delete(key.namespace);
    return before;
  }
}
