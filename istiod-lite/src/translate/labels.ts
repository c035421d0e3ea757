// Label selection (metav1.LabelSelector's matchLabels) and Istio's canonical names.

import type { Resource } from "@ambit/api/resources/kinds.ts";

export type Labels = Readonly<Record<string, string>>;

/** Every wanted label is there with its value; an empty selector matches everything. */
export function labelsMatch(wanted: Labels, labels: Labels): boolean {
  return Object.entries(wanted).every(([key, value]) => labels[key] === value);
}

export function labelsOf(resource: Resource): Labels {
  return resource.metadata.labels ?? {};
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
