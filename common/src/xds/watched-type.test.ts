import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { newStore, resource } from "../testing/xds-harness.ts";
import { SUBSCRIBED_NAMES_MAX } from "./limits.ts";
import { TYPE_ADDRESS } from "./resource-type.ts";
import { type SubscriptionRequest, TooManyNamesError, WatchedType } from "./watched-type.ts";

const request = (more: Partial<SubscriptionRequest> = {}): SubscriptionRequest => ({
  resourceNamesSubscribe: [],
  resourceNamesUnsubscribe: [],
  initialResourceVersions: {},
  ...more,
});

const NAMES = ["a", "b", "c", "d"];
const name = fc.constantFrom(...NAMES);
const step = fc.oneof(
  fc.record({ put: name, text: fc.constantFrom("1", "2"), child: fc.boolean() }),
  fc.record({ remove: name }),
  fc.record({ subscribe: name }),
  fc.constant("take" as const),
  fc.constant("reconnect" as const),
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** A store, one client of it, and what the client holds as versions by name. */
class Model {
  readonly store = newStore();
  readonly held = new Map<string, string>();
  readonly asked = new Set<string>();
  readonly #wildcard: boolean;
  #watched: WatchedType;

  constructor(wildcard: boolean) {
    this.#wildcard = wildcard;
    this.#watched = this.#open();
    this.store.listen(({ before }) => {
      for (const [changed, old] of before) this.#watched.noteChange(changed, old);
    });
  }

  get type() {
    return this.store.type(TYPE_ADDRESS)!;
  }

  #open(): WatchedType {
    const everything = this.#wildcard ? [] : ["*"];
    const awaited = [...this.asked].map((key): [string, string] => [key, ""]);
    return new WatchedType(
      this.type,
      request({
        resourceNamesSubscribe: everything,
        resourceNamesUnsubscribe: everything,
        initialResourceVersions: Object.fromEntries([...awaited, ...this.held]),
      }),
    );
  }

  run(action: Step): void {
    if (action === "take") this.take();
    else if (action === "reconnect") this.#watched = this.#open();
    else if ("put" in action) {
      const parents = action.child ? ["a"] : [];
      const value = resource(action.put, `${action.text}${parents.join("")}`, { parents });
      this.store.apply({ typeUrl: TYPE_ADDRESS, upserts: [value], removed: [] });
    } else if ("remove" in action) {
      this.store.apply({ typeUrl: TYPE_ADDRESS, upserts: [], removed: [action.remove] });
    } else if (!this.#wildcard) {
      this.asked.add(action.subscribe);
      this.#watched.update(request({ resourceNamesSubscribe: [action.subscribe] }));
    }
  }

  take(): void {
    if (!this.#watched.pending) return;
    const { upserts, removed } = this.#watched.take();
    for (const gone of removed) {
      expect(this.type.get(gone)).toBeUndefined();
      this.held.delete(gone);
    }
    for (const { name: key, version } of upserts) this.held.set(key, version);
    expect(this.#watched.pending).toBe(false);
  }
}

describe("whatever happens, the client catches up", () => {
  it("with everything", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const model = new Model(true);
        for (const action of steps) model.run(action);
        model.take();
        const current = [...model.type.values()].map(({ name: key, version }) => [key, version]);
        expect(model.held).toEqual(new Map(current as [string, string][]));
      }),
      { numRuns: 500 },
    );
  });

  it("with what it asked for, in the current version, and nothing that is gone", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const model = new Model(false);
        for (const action of steps) model.run(action);
        model.take();
        for (const key of model.asked) {
          const current = model.type.get(key);
          expect(model.held.get(key)).toBe(current?.version);
          if (current === undefined) continue;
          for (const child of model.type.childrenOf(key)) {
            expect(model.held.get(child.name)).toBe(child.version);
          }
        }
        for (const [key, version] of model.held) {
          expect(model.type.get(key)?.version).toBe(version);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("a watched type", () => {
  it("sends nothing for what came and went, or went and came back", () => {
    const model = new Model(true);
    model.run({ put: "a", text: "1", child: false });
    model.take();
    const put = (text: "1" | "2") => model.run({ put: "a", text, child: false });
    put("2");
    put("1");
    model.run({ put: "b", text: "1", child: false });
    model.run({ remove: "b" });
    const before = new Map(model.held);
    model.take();
    expect(model.held).toEqual(before);
  });

  it("takes as many names as the limit and refuses one more", () => {
    const names = Array.from({ length: SUBSCRIBED_NAMES_MAX }, (_, index) => `n${index}`);
    const type = newStore().type(TYPE_ADDRESS)!;
    const watched = new WatchedType(type, request({ resourceNamesSubscribe: names }));
    expect(() => watched.update(request({ resourceNamesSubscribe: ["n0"] }))).not.toThrow();
    expect(() => watched.update(request({ resourceNamesSubscribe: ["more"] }))).toThrow(
      TooManyNamesError,
    );
  });

  it("of a type that is always sent whole is everything, whatever is asked for", () => {
    const store = newStore();
    const put = (...names: string[]) =>
      store.apply({
        typeUrl: TYPE_ADDRESS,
        upserts: names.map((each) => resource(each, "1")),
        removed: [],
      });
    put("a", "b");
    const type = store.type(TYPE_ADDRESS)!;
    const first = request({ resourceNamesSubscribe: ["a"], resourceNamesUnsubscribe: ["*"] });
    const watched = new WatchedType(type, first, { alwaysAll: true });
    const sent = () => watched.take().upserts.map(({ name }) => name);
    expect([watched.wildcard, sent()]).toEqual([true, ["a", "b"]]);
    watched.update(request({ resourceNamesUnsubscribe: ["*", "a"] }));
    put("c");
    watched.noteChange("c", undefined);
    expect([watched.wildcard, sent()]).toEqual([true, ["c"]]);
  });
});
