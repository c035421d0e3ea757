import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ChurnSet, type Membership } from "./churn-set.ts";
import { IdMap } from "./id-map.ts";

const sorted = (items: Iterable<number>) => [...items].sort((a, b) => a - b);

describe("ChurnSet", () => {
  it("holds what came and has not left, in whatever order they leave", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(20)), (steps) => {
        const set = new ChurnSet<number>();
        const there: { item: number; membership: Membership }[] = [];
        steps.forEach((step, item) => {
          const [leaver] = step % 2 === 0 ? [] : there.splice(step % (there.length || 1), 1);
          leaver?.membership.leave();
          if (leaver === undefined) there.push({ item, membership: set.add(item) });
          expect(set.size).toBe(there.length);
          expect(sorted(set)).toEqual(sorted(there.map((entry) => entry.item)));
        });
      }),
    );
  });

  it("lets an item leave only once", () => {
    const set = new ChurnSet<string>();
    const first = set.add("first");
    set.add("second");
    first.leave();
    first.leave();
    expect([...set]).toEqual(["second"]);
  });

  it("lets items leave while they are iterated", () => {
    const set = new ChurnSet<Membership[]>();
    const own: Membership[][] = [[], [], []];
    for (const memberships of own) memberships.push(set.add(memberships));
    let seen = 0;
    for (const memberships of set) {
      memberships[0]!.leave();
      seen++;
    }
    expect([seen, set.size]).toEqual([3, 0]);
  });
});

describe("IdMap", () => {
  const id = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 2 ** 31 - 1 }));
  const step = fc.record({
    id,
    action: fc.constantFrom("set", "set", "delete", "delete", "clear"),
  });

  it("is a Map, whatever is set and deleted in whatever order", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const map = new IdMap<number>();
        const model = new Map<number, number>();
        for (const [at, { id: key, action }] of steps.entries()) {
          if (action === "set") {
            map.set(key, at);
            model.set(key, at);
          } else if (action === "delete") {
            map.delete(key);
            model.delete(key);
          } else if (at % 10 === 0) {
            map.clear();
            model.clear();
          }
          expect(map.size).toBe(model.size);
          expect(map.get(key)).toBe(model.get(key));
        }
        for (const [key, value] of model) expect(map.get(key)).toBe(value);
        expect(sorted(map.values())).toEqual(sorted(model.values()));
      }),
    );
  });
});
