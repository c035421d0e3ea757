import { describe, expect, it } from "vitest";
import { type LabelSelector, selectorMatches } from "./label-selector.ts";

describe("a label selector", () => {
  const labels = { app: "cart", tier: "" };
  it.each<[string, LabelSelector, boolean]>([
    ["that is empty matches", {}, true],
    ["with an equal label matches", { matchLabels: { app: "cart" } }, true],
    ["with another value does not", { matchLabels: { app: "web" } }, false],
    ["In", { matchExpressions: [{ key: "app", operator: "In", values: ["cart"] }] }, true],
    [
      "In of an absent label",
      { matchExpressions: [{ key: "x", operator: "In", values: [""] }] },
      false,
    ],
    [
      "NotIn of an absent label",
      { matchExpressions: [{ key: "x", operator: "NotIn", values: ["a"] }] },
      true,
    ],
    ["NotIn", { matchExpressions: [{ key: "app", operator: "NotIn", values: ["cart"] }] }, false],
    [
      "Exists with an empty value",
      { matchExpressions: [{ key: "tier", operator: "Exists" }] },
      true,
    ],
    ["DoesNotExist", { matchExpressions: [{ key: "app", operator: "DoesNotExist" }] }, false],
    [
      "Exists of a label named as a method",
      { matchExpressions: [{ key: "toString", operator: "Exists" }] },
      false,
    ],
    [
      "of which one part does not hold",
      {
        matchLabels: { app: "cart" },
        matchExpressions: [{ key: "app", operator: "DoesNotExist" }],
      },
      false,
    ],
  ])("%s", (_name, selector, expected) => {
    expect(selectorMatches(selector, labels)).toBe(expected);
  });
});
