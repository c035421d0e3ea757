// Hides what is in namespaces that discoverySelectors leave out, from everything behind it. A namespace that
// comes into sight brings what is in it; one that goes out of sight takes it away.

import type { Resource } from "@ambit/api/resources/kinds.ts";
import { type LabelSelector, selectorMatches } from "@ambit/common/resources/label-selector.ts";
import { keyOf, keyText, type ResourceEvent } from "@ambit/common/resources/source.ts";
import { type Labels, labelsOf } from "../translate/labels.ts";

export class NamespaceFilter {
  /** The mesh's own parts are there: always seen. */
  readonly #systemNamespace: string;
  #selectors: readonly LabelSelector[] = [];
  readonly #labels = new Map<string, Labels>();
  /** By namespace, then key; also of those that are seen. */
  readonly #objects = new Map<string, Map<string, Resource>>();

  constructor(systemNamespace: string) {
    this.#systemNamespace = systemNamespace;
  }

  /** What is to be seen of the events, and what they bring into sight or take out of it. */
  apply(events: readonly ResourceEvent[]): readonly ResourceEvent[] {
    return events.flatMap((event) => this.#apply(event));
  }

  /** Without selectors everything is seen. Returns what changes for those behind. */
  select(selectors: readonly LabelSelector[]): ResourceEvent[] {
    const names = [...this.#objects.keys()];
    const before = new Set(names.filter((name) => this.#isSeen(name)));
    this.#selectors = selectors;
    return names.flatMap((name) => this.#flip(name, before.has(name)));
  }

  #apply(event: ResourceEvent): ResourceEvent[] {
    const key = event.type === "upsert" ? keyOf(event.resource) : event.key;
    if (key.kind === "Namespace") {
      const before = this.#isSeen(key.name);
      if (event.type === "upsert") this.#labels.set(key.name, labelsOf(event.resource));
      else this.#labels.delete(key.name);
      return [event, ...this.#flip(key.name, before)];
    }
    if (key.namespace === "") return [event];
    if (event.type === "upsert") {
      this.#objects
        .getOrInsertComputed(key.namespace, () => new Map<string, Resource>())
        .set(keyText(key), event.resource);
    } else this.#forget(key.namespace, keyText(key));
    return this.#isSeen(key.namespace) ? [event] : [];
  }

  #forget(namespace: string, key: string): void {
    const objects = this.#objects.get(namespace);
    objects?.delete(key);
    if (objects?.size === 0) this.#objects.delete(namespace);
  }

  /** What is in the namespace comes or goes when it was not seen as it is now. */
  #flip(namespace: string, before: boolean): ResourceEvent[] {
    const seen = this.#isSeen(namespace);
    if (seen === before) return [];
    return [...(this.#objects.get(namespace)?.values() ?? [])].map((resource) =>
      seen ? { type: "upsert", resource } : { type: "delete", key: keyOf(resource) },
    );
  }

  #isSeen(namespace: string): boolean {
    if (this.#selectors.length === 0 || namespace === this.#systemNamespace) return true;
    const labels = this.#labels.get(namespace) ?? {};
    return this.#selectors.some((selector) => selectorMatches(selector, labels));
  }
}
