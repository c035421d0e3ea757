// The objects of one kind, by key and by namespace. Replacing hands back what was there before.

import type { ResourceKind, ResourceOf } from "@ambit/api/resources/kinds.ts";
import { keyOf, keyText, type ResourceKey } from "@ambit/common/resources/source.ts";

export class ObjectIndex<K extends ResourceKind> {
  readonly #byKey = new Map<string, ResourceOf<K>>();
  readonly #byNamespace = new Map<string, Map<string, ResourceOf<K>>>();

  get all(): Iterable<ResourceOf<K>> {
    return this.#byKey.values();
  }

  get size(): number {
    return this.#byKey.size;
  }

  get(key: string): ResourceOf<K> | undefined {
    return this.#byKey.get(key);
  }

  inNamespace(namespace: string): Iterable<ResourceOf<K>> {
    return this.#byNamespace.get(namespace)?.values() ?? [];
  }

  /** Returns the object that was replaced. */
  put(object: ResourceOf<K>): ResourceOf<K> | undefined {
    const key = keyText(keyOf(object));
    const before = this.#byKey.get(key);
    this.#byKey.set(key, object);
    const namespace = object.metadata.namespace ?? "";
    this.#byNamespace
      .getOrInsertComputed(namespace, () => new Map<string, ResourceOf<K>>())
      .set(key, object);
    return before;
  }

  /** Returns the object that was removed. */
  delete(key: ResourceKey): ResourceOf<K> | undefined {
    const text = keyText(key);
    const before = this.#byKey.get(text);
    this.#byKey.delete(text);
    const siblings = this.#byNamespace.get(key.namespace);
    siblings?.delete(text);
    if (siblings?.size === 0) this.#byNamespace.delete(key.namespace);
    return before;
  }
}
