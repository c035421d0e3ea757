// What the agent writes on pods for everybody else to read, and the one way it is written: through the
// resource writer. The control plane believes the redirection annotation and nothing else.

import type { Pod } from "@ambit/api/resources/kinds.ts";
import type { ResourceKey, ResourceWriter } from "@ambit/common/resources/source.ts";
import type { PodEditor } from "./pod-repair.ts";
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
export function hasMarks(
  { annotations }: PodView,
  { redirection, capture }: Readonly<Record<keyof PodMarks, string | undefined>>,
): boolean {
  return (
    annotations[REDIRECTION_ANNOTATION] === redirection &&
    annotations[CAPTURE_ANNOTATION] === capture
  );
}

/** Where pods' objects are changed. */
export interface PodWriter extends ResourceWriter {
  delete(key: ResourceKey): Promise<unknown>;
}

export class ResourceAnnotator implements PodAnnotator, PodEditor {
  readonly #writer: PodWriter;

  constructor(writer: PodWriter) {
    this.#writer = writer;
  }

  async delete({ namespace, name }: PodView): Promise<void> {
    await this.#writer.delete({ kind: "Pod", namespace, name });
  }

  async setLabel(pod: PodView, label: string, value: string | undefined): Promise<void> {
    await this.#patch(pod, (metadata) => {
      const labels = { ...metadata.labels };
      set(labels, label, value);
      return { ...metadata, labels };
    });
  }

  /** A pod that was replaced by one of the same name is left alone, too. */
  async annotate(pod: PodView, { redirection, capture }: PodMarks): Promise<void> {
    await this.#patch(pod, (metadata) => {
      const annotations = { ...metadata.annotations };
      set(annotations, REDIRECTION_ANNOTATION, redirection);
      set(annotations, CAPTURE_ANNOTATION, capture);
      return { ...metadata, annotations };
    });
  }

  async #patch(pod: PodView, change: (metadata: Pod["metadata"]) => Pod["metadata"]) {
    const key = { kind: "Pod", namespace: pod.namespace, name: pod.name } as const;
    await this.#writer.patch(key, (resource) => {
      if (resource.kind !== "Pod" || podView(resource).uid !== pod.uid) return resource;
      return { ...resource, metadata: change(resource.metadata) };
    });
  }
}

function set(annotations: Record<string, string>, key: string, value: string | undefined): void {
  if (value === undefined) delete annotations[key];
  else annotations[key] = value;
}
