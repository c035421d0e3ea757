// Whether a pod belongs in the mesh, and why: a pure decision (Istio's rules, cni/pkg/util/podutil.go).

import type { NamespaceView, PodView } from "../mesh/pod-view.ts";
import { type EnablementSelector, selects } from "./selector.ts";

export interface EnrolmentOptions {
  readonly selectors: readonly EnablementSelector[];
  readonly excludedNamespaces: ReadonlySet<string>;
  /** Where ztunnel itself runs: it is never enrolled. */
  readonly systemNamespace: string;
}

export type EnrolmentReason =
  | "selected"
  | "not-selected"
  | "excluded-namespace"
  | "host-network"
  | "has-sidecar"
  | "is-ztunnel"
  | "terminated";

export interface Enrolment {
  readonly enrolled: boolean;
  readonly reason: EnrolmentReason;
  /** A sentence for logs and people. */
  readonly message: string;
}

const SIDECAR_STATUS = "sidecar.istio.io/status";

const MESSAGES: Readonly<Record<EnrolmentReason, string>> = {
  selected: "istio.io/dataplane-mode (or the enablement selector) asks for it",
  "not-selected": "neither the pod nor its namespace is labelled istio.io/dataplane-mode=ambient",
  "excluded-namespace": "its namespace is excluded by the agent's configuration",
  "host-network": "it uses the node's network, which cannot be captured for one pod",
  "has-sidecar": "it has a sidecar already",
  "is-ztunnel": "it is ztunnel",
  terminated: "it has ended",
};

/** The namespace may be unknown yet: it then counts as having no labels. */
export function enrolment(
  pod: PodView,
  namespace: NamespaceView | undefined,
  options: EnrolmentOptions,
): Enrolment {
  const reason = decide(pod, namespace ?? { name: pod.namespace, labels: {} }, options);
  return { enrolled: reason === "selected", reason, message: MESSAGES[reason] };
}

function decide(
  pod: PodView,
  namespace: NamespaceView,
  { selectors, excludedNamespaces, systemNamespace }: EnrolmentOptions,
): EnrolmentReason {
  if (pod.terminal) return "terminated";
  if (pod.hostNetwork) return "host-network";
  if (excludedNamespaces.has(pod.namespace)) return "excluded-namespace";
  if (pod.namespace === systemNamespace && pod.labels["app"] === "ztunnel") return "is-ztunnel";
  if (Object.hasOwn(pod.annotations, SIDECAR_STATUS)) return "has-sidecar";
  return selects(selectors, pod, namespace) ? "selected" : "not-selected";
}
