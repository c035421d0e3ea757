// What becomes of pods that cannot be captured although they should be: the reconciler goes on trying
// (Istio's "repair pods"); besides, when asked for, such a pod gets a label, or is deleted so that
// whoever owns it makes another. Only for what is the pod's own fault: while no ztunnel is there, or no
// pod at all can be captured, the node is at fault, and its pods are left alone.

import type { Clock } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { AgentErrorCode } from "../errors.ts";
import type { PodView } from "./pod-view.ts";

/** Each pod is given this long to come right by itself. */
export const REPAIR_AFTER_MS = 30_000;

/** A fault of ours that looks like the pods' must not take a whole node's pods away at once. */
export const DELETION_PAUSE_MS = 10_000;

export interface RepairOptions {
  readonly deletePods: boolean;
  readonly labelPods: boolean;
  readonly labelKey: string;
  readonly labelValue: string;
}

/** How the pod's object is changed. A pod that is gone is no error. */
export interface PodEditor {
  setLabel(pod: PodView, key: string, value: string | undefined): Promise<void>;
  delete(pod: PodView): Promise<void>;
}

export type RepairResult = { readonly type: string; readonly result: "success" | "fail" };

export interface PodRepairParts {
  readonly options: RepairOptions;
  readonly editor: PodEditor;
  readonly clock: Clock;
  readonly log: Logger;
  /** Whether the node itself is in order: its ztunnel is there, and some pod is captured. */
  readonly nodeWorks: () => boolean;
  readonly onRepaired: (result: RepairResult) => void;
}

/** Reasons that lie in one pod. */
const OWN_FAULTS: ReadonlySet<string> = new Set<AgentErrorCode>([
  "netns-not-found",
  "capture-unproven",
  "command-failed",
  "command-timed-out",
  "bpf-failed",
  "ztunnel-rejected",
]);

export class PodRepair {
  readonly #parts: PodRepairParts;
  /** Since when each pod fails, by uid; at most as many as the node has pods. */
  readonly #failingSinceMs = new Map<string, number>();
  #deletedAtMs = -Infinity;

  constructor(parts: PodRepairParts) {
    this.#parts = parts;
  }

  /** A step of the pod's failed. Called again with every further try. */
  async failed(pod: PodView, code: string): Promise<void> {
    const nowMs = this.#parts.clock.monotonicMs();
    if (!OWN_FAULTS.has(code) || !this.#parts.nodeWorks()) return this.#forget(pod);
    const sinceMs = this.#failingSinceMs.getOrInsert(pod.uid, nowMs);
    if (nowMs - sinceMs < REPAIR_AFTER_MS) return;
    const { deletePods, labelPods, labelKey, labelValue } = this.#parts.options;
    if (deletePods) {
      if (nowMs - this.#deletedAtMs < DELETION_PAUSE_MS) return;
      this.#deletedAtMs = nowMs;
      await this.#do("delete", pod, (editor) => editor.delete(pod));
    } else if (labelPods && pod.labels[labelKey] !== labelValue) {
      await this.#do("label", pod, (editor) => editor.setLabel(pod, labelKey, labelValue));
    }
  }

  /** The pod is as it should be, or nobody's business any more. */
  async recovered(pod: PodView): Promise<void> {
    const { options, onRepaired, editor } = this.#parts;
    const { labelKey, labelValue } = options;
    if (this.#failingSinceMs.has(pod.uid)) onRepaired({ type: "repair", result: "success" });
    this.#forget(pod);
    if (options.labelPods && pod.labels[labelKey] === labelValue) {
      await editor.setLabel(pod, labelKey, undefined);
    }
  }

  #forget({ uid }: PodView): void {
    this.#failingSinceMs.delete(uid);
  }

  async #do(type: string, pod: PodView, act: (editor: PodEditor) => Promise<void>): Promise<void> {
    const { editor, log, onRepaired } = this.#parts;
    const fields = { namespace: pod.namespace, pod: pod.name, seconds: REPAIR_AFTER_MS / 1000 };
    try {
      await act(editor);
      log.warn(`pod cannot be captured: ${type}`, fields);
      onRepaired({ type, result: "success" });
      if (type === "delete") this.#forget(pod);
    } catch (error) {
      log.warn(`pod cannot be captured, and ${type} failed`, {
        ...fields,
        error: errorMessage(error),
      });
      onRepaired({ type, result: "fail" });
    }
  }
}
