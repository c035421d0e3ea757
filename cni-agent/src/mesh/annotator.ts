// Writes ambient.istio.io/redirection into pods through the resource writer.

import type { ResourceWriter } from "@ambit/common/resources/source.ts";
import { type PodAnnotator, REDIRECTION_ANNOTATION, type RedirectionState } from "./pod-mesh.ts";
import { type PodView, podView } from "./pod-view.ts";

export class ResourceAnnotator implements PodAnnotator {
  readonly #writer: ResourceWriter;

  constructor(writer: ResourceWriter) {
    this.#writer = writer;
  }

  /** A pod that is gone, or was replaced by one of the same name, is left alone. */
  async setRedirection(pod: PodView, state: RedirectionState): Promise<void> {
    const key = { kind: "Pod", namespace: pod.namespace, name: pod.name } as const;
    await this.#writer.patch(key, (resource) => {
      if (resource.kind !== "Pod" || podView(resource).uid !== pod.uid) return resource;
      const annotations = { ...resource.metadata.annotations };
      if (state === undefined) delete annotations[REDIRECTION_ANNOTATION];
      else annotations[REDIRECTION_ANNOTATION] = state;
      return { ...resource, metadata: { ...resource.metadata, annotations } };
    });
  }
}
