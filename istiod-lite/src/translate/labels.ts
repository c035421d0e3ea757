// Label selection (metav1.LabelSelector's matchLabels) and Istio's canonical names.

import type { Resource } from "@ambit/api/resources/kinds.ts";

export type Labels = Readonly<Record<string, string>>;

/** Every wanted label is there with its value; an empty selector matches everything. */
export function labelsMatch(wanted: Labels, labels: Labels): boolean {
  for (const key in wanted) if (labels[key] !== wanted[key]) return false;
  return true;
}

const NONE: Labels = {};

export function labelsOf(resource: Resource): Labels {
  return resource.metadata.labels ?? NONE;
}

/** What Go's ParseBool takes for true. */
const TRUE = new Set(["1", "t", "T", "TRUE", "true", "True"]);

/** A label or annotation that switches something on. */
export function isTrue(value: string | undefined): boolean {
  return TRUE.has(value ?? "");
}

/** service.istio.io/canonical-name, the app labels, then the workload's own name. */
export function canonicalName(labels: Labels, workloadName: string): string {
  return (
    labels["service.istio.io/canonical-name"] ??
    labels["app.kubernetes.io/name"] ??
    labels["app"] ??
    workloadName
  );
}

export function canonicalRevision(labels: Labels): string {
  return (
    labels["service.istio.io/canonical-revision"] ??
    labels["app.kubernetes.io/version"] ??
    labels["version"] ??
    "latest"
  );
}
