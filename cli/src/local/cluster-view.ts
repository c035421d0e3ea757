// What the store holds, as the runtime sees it: an index of objects by kind, kept up to date by the
// folder source. Read-only for everybody else.

import type { Resource, ResourceKind, ResourceOf } from "@ambit/api/resources/kinds.ts";
import { keyOf, type ResourceEvent } from "@ambit/common/resources/source.ts";

export class ClusterView {
  readonly #objects = new Map<ResourceKind, Map<string, Resource>>();

  apply(events: readonly ResourceEvent[]): void {
    for (const event of events) {
      const { kind, namespace, name } = event.type === "delete" ? event.key : keyOf(event.resource);
      const ofKind = this.#objects.getOrInsertComputed(kind, () => new Map<string, Resource>());
      if (event.type === "delete") ofKind.delete(`${namespace}/${name}`);
      else ofKind.set(`${namespace}/${name}`, event.resource);
    }
  }

  list<K extends ResourceKind>(kind: K): ResourceOf<K>[] {
    return [...(this.#objects.get(kind)?.values() ?? [])] as ResourceOf<K>[];
  }

  get<K extends ResourceKind>(kind: K, namespace: string, name: string): ResourceOf<K> | undefined {
    return this.#objects.get(kind)?.get(`${namespace}/${name}`) as ResourceOf<K> | undefined;
  }
}
