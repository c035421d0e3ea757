import fc from "fast-check";
import { expect, it } from "vitest";
import { labelsMatch } from "../translate/labels.ts";
import { SelectorIndex } from "./selector-index.ts";

const labels = fc.dictionary(fc.constantFrom("a", "b", "c"), fc.constantFrom("1", "2", ""), {
  maxKeys: 3,
});
const step = fc.record({
  key: fc.constantFrom("x", "y", "z"),
  namespace: fc.constantFrom("n", "m"),
  selector: fc.option(labels, { nil: undefined }),
});

it("finds what asking every selector finds, after any puts and deletes", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), labels, (steps, wanted) => {
      const index = new SelectorIndex<string>();
      const held = new Map<string, { namespace: string; selector: Record<string, string> }>();
      for (const { key, namespace, selector } of steps) {
        const before = held.get(key);
        if (before !== undefined) index.delete(before.namespace, key, before.selector);
        held.delete(key);
        if (selector === undefined) continue;
        index.put(namespace, key, selector, key);
        held.set(key, { namespace, selector });
      }
      const expected = [...held]
        .filter(([, entry]) => entry.namespace === "n" && labelsMatch(entry.selector, wanted))
        .map(([key]) => key);
      expect([...index.matching("n", wanted)].sort()).toEqual(expected.sort());
    }),
  );
});
