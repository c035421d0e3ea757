// Istio's enablement selectors, made of Kubernetes label selectors. Pure.

import { z } from "zod";
import { parseYamlValue } from "@ambit/common/process/yaml-value.ts";
import { selectorMatches } from "@ambit/common/resources/label-selector.ts";
import { labelSelector } from "@ambit/api/resources/meta.ts";
import type { NamespaceView, PodView } from "../mesh/pod-view.ts";

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
      selectorMatches(podSelector, pod.labels) &&
      selectorMatches(namespaceSelector, namespace.labels),
  );
}
