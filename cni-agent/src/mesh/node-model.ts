// The pods of this node and all namespaces, from resource events. Tells which pods a change concerns.
// Owns only what was read; what has been done to pods is in PodMesh.

import type { ResourceEvent } from "@ambit/common/resources/source.ts";
import { type NamespaceView, namespaceView, podKey, type PodView, podView } from "./pod-view.ts";

export class NodeModel {
  readonly #nodeName: string;
  readonly #pods = new Map<string, PodView>();
  readonly #namespaces = new Map<string, NamespaceView>();

  constructor(nodeName: string) {
    this.#nodeName = nodeName;
  }

  /** Takes events in; returns the keys of pods that may have to change. */
  apply(events: readonly ResourceEvent[]): Set<string> {
    const changed = new Set<string>();
    for (const event of events) {
      if (event.type === "upsert") this.#upsert(event.resource, changed);
      else this.#delete(event.key, changed);
    }
    return changed;
  }

  pod(key: string): PodView | undefined {
    return this.#pods.get(key);
  }

  pods(): Iterable<PodView> {
    return this.#pods.values();
  }

  namespace(name: string): NamespaceView | undefined {
    return this.#namespaces.get(name);
  }

  #upsert(
    resource: Extract<ResourceEvent, { type: "upsert" }>["resource"],
    changed: Set<string>,
  ): void {
    if (resource.kind === "Pod") this.#upsertPod(podView(resource), changed);
    if (resource.kind !== "Namespace") return;
    const namespace = namespaceView(resource);
    this.#namespaces.set(namespace.name, namespace);
    this.#markNamespace(namespace.name, changed);
  }

  #upsertPod(pod: PodView, changed: Set<string>): void {
    if (pod.nodeName === this.#nodeName) this.#pods.set(pod.key, pod);
    else if (!this.#pods.delete(pod.key)) return;
    changed.add(pod.key);
  }

  #delete(key: Extract<ResourceEvent, { type: "delete" }>["key"], changed: Set<string>): void {
    if (key.kind === "Pod") {
      const name = podKey(key.namespace, key.name);
      if (this.#pods.delete(name)) changed.add(name);
    } else if (key.kind === "Namespace" && this.#namespaces.delete(key.name)) {
      this.#markNamespace(key.name, changed);
    }
  }

  #markNamespace(name: string, changed: Set<string>): void {
    for (const { key, namespace } of this.#pods.values()) if (namespace === name) changed.add(key);
  }
}
