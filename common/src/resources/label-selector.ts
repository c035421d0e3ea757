// Kubernetes label selectors (metav1.LabelSelector) against labels. Pure.

import type { z } from "zod";
import type { labelSelector } from "@ambit/api/resources/meta.ts";

export type LabelSelector = z.infer<typeof labelSelector>;

type Expression = NonNullable<LabelSelector["matchExpressions"]>[number];
type Labels = Readonly<Record<string, string>>;

/** Every wanted label and every expression holds; an empty selector matches everything. */
export function selectorMatches(selector: LabelSelector, labels: Labels): boolean {
  const equal = Object.entries(selector.matchLabels ?? {}).every(
    ([key, value]) => labels[key] === value,
  );
  return equal && (selector.matchExpressions ?? []).every((entry) => matchesOne(entry, labels));
}

/** As Kubernetes: NotIn also matches when the label is absent. */
function matchesOne({ key, operator, values = [] }: Expression, labels: Labels): boolean {
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
