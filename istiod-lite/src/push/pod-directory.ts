// Pods by name and by node, for the node authorizer. Fed with every event at once, not debounced: a
// node proxy asks for a certificate as soon as its pod is there.

import type { Pod } from "@ambit/api/resources/kinds.ts";
import { keyOf, keyText, type ResourceEvent } from "@ambit/common/resources/source.ts";
import type { KnownPod, PodIndex } from "../ca/node-authorizer.ts";

export class PodDirectory implements PodIndex {
  readonly #byKey = new Map<string, KnownPod>();
  readonly #byNode = new Map<string, Set<KnownPod>>();

  apply(event: ResourceEvent): void {
    if (event.type === "delete") {
      if (event.key.kind === "Pod") this.#remove(keyText(event.key));
    } else if (event.resource.kind === "Pod") this.#put(event.resource);
  }

  pod(namespace: string, name: string): KnownPod | undefined {
    return this.#byKey.get(keyText({ kind: "Pod", namespace, name }));
  }

  podsOnNode(node: string): Iterable<KnownPod> {
    return this.#byNode.get(node) ?? [];
  }

  #put(pod: Pod): void {
    const key = keyText(keyOf(pod));
    this.#remove(key);
    const known: KnownPod = {
      uid: pod.metadata.uid ?? "",
      namespace: pod.metadata.namespace ?? "",
      serviceAccount: pod.spec.serviceAccountName ?? "default",
      node: pod.spec.nodeName ?? "",
      failed: pod.status?.phase === "Failed",
    };
    this.#byKey.set(key, known);
    // A pod that is not scheduled is on no node.
    if (known.node === "") return;
    this.#byNode.getOrInsertComputed(known.node, () => new Set<KnownPod>()).add(known);
  }

  #remove(key: string): void {
    const known = this.#byKey.get(key);
    if (known === undefined) return;
    this.#byKey.delete(key);
    const siblings = this.#byNode.get(known.node);
    siblings?.delete(known);
    if (siblings?.size === 0) this.#byNode.delete(known.node);
  }
}
