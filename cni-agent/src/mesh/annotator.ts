// What the agent writes on pods for everybody else to read, and the one way it is written: through the
// resource writer. The control plane believes the redirection annotation and nothing else.

import type { ResourceWriter } from "@ambit/common/resources/source.ts";
import { type PodView, podView } from "./pod-view.ts";

/** Istio's: read by control planes. */
export const REDIRECTION_ANNOTATION = "ambient.istio.io/redirection";
/** Ours: "proven", or why the pod's capture is not; for people and for status. */
export const CAPTURE_ANNOTATION = "ambit.io/capture";

/** enabled: proven once, and not taken out since. pending: captured, or about to be; not served yet. */
export type RedirectionState = "enabled" | "pending" | undefined;

export interface PodMarks {
  readonly redirection: RedirectionState;
  readonly capture: string | undefined;
}

/** A pod that is gone is no error. */
export interface PodAnnotator {
  annotate(pod: PodView, marks: PodMarks): Promise<void>;
}

/** Whether the pod's object says so already. */
export function hasMarks({ annotations }: PodView, { redirection, capture }: PodMarks): boolean {
  return (
    annotations[REDIRECTION_ANNOTATION] === redirection &&
    annotations[CAPTURE_ANNOTATION] === capture
  );
}

export class ResourceAnnotator implements PodAnnotator {
  readonly #writer: ResourceWriter;

  constructor(writer: ResourceWriter) {
    this.#writer = writer;
  }

  /** A pod that was replaced by one of the same name is left alone, too. */
  async annotate(pod: PodView, { redirection, capture }: PodMarks): Promise<void> {
    const key = { kind: "Pod", namespace: pod.namespace, name: pod.name } as const;
    await this.#writer.patch(key, (resource) => {
      if (resource.kind !== "Pod" || podView(resource).uid !== pod.uid) return resource;
      const annotations = { ...resource.metadata.annotations };
      set(annotations, REDIRECTION_ANNOTATION, redirection);
      set(annotations, CAPTURE_ANNOTATION, capture);
      return { ...resource, metadata: { ...resource.metadata, annotations } };
    });
  }
}

function set(annotations: Record<string, string>, key: string, value: string | undefined): void {
  if (value === undefined) delete annotations[key];
  else annotations[key] = value;
}
