// Kubernetes label selectors, and Istio's enablement selectors made of them. Pure.

import { z } from "zod";
import { parseYamlValue } from "@ambit/common/process/yaml-value.ts";
import { labelSelector } from "@ambit/api/resources/meta.ts";
import type { NamespaceView, PodView, StringMap } from "../mesh/pod-view.ts";

export type LabelSelector = z.infer<typeof labelSelector>;

/** Both must match; an empty one matches everything. */
const enablementSelector = z.strictObject({
  podSelector: labelSelector.default({}),
  namespaceSelector: labelSelector.default({}),
});

export type EnablementSelector = z.infer<typeof enablementSelector>;

const MODE = "istio.io/dataplane-mode";

/** Istio's default: the pod's label, or the namespace's unless the pod says none. */
export const DEFAULT_SELECTORS: readonly EnablementSelector[] = [
  { podSelector: { matchLabels: { [MODE]: "ambient" } }, namespaceSelector: {} },
  {
    podSelector: { matchExpressions: [{ key: MODE, operator: "NotIn", values: ["none"] }] },
    namespaceSelector: { matchLabels: { [MODE]: "ambient" } },
  },
];

/**
 * Reads a list of {podSelector, namespaceSelector}: YAML, as Istio's chart passes it, or JSON. Throws
 * an Error that says what is wrong.
 */
export function parseSelectors(text: string): readonly EnablementSelector[] {
  const result = z.array(enablementSelector).safeParse(parseYamlValue(text));
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new Error(`${issue?.path.join(".")}: ${issue?.message}`);
}

/** True when any of the selectors matches both. */
export function selects(
  selectors: readonly EnablementSelector[],
  pod: PodView,
  namespace: NamespaceView,
): boolean {
  return selectors.some(
    ({ podSelector, namespaceSelector }) =>
      matches(podSelector, pod.labels) && matches(namespaceSelector, namespace.labels),
  );
}

export function matches(selector: LabelSelector, labels: StringMap): boolean {
  const equal = Object.entries(selector.matchLabels ?? {}).every(
    ([key, value]) => labels[key] === value,
  );
  return equal && (selector.matchExpressions ?? []).every((entry) => matchesOne(entry, labels));
}

type Expression = NonNullable<LabelSelector["matchExpressions"]>[number];

/** As Kubernetes: NotIn also matches when the label is absent. */
function matchesOne({ key, operator, values = [] }: Expression, labels: StringMap): boolean {
  const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
  switch (operator) {
    case "In":
      return value !== undefined && values.includes(value);
    case "NotIn":
      return value === undefined || !values.includes(value);
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
  }
}
