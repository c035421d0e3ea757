import { describe, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { DEMAND_WAIT_MS, DEMAND_WAITERS_MAX, DemandView } from "./demand-view.ts";

function setUp() {
  const clock = new FakeClock();
  const asked: string[] = [];
  return { clock, asked, view: new DemandView(clock, (key) => asked.push(key)) };
}

describe("what the state lacks", () => {
  it.each(["present", "absent"] as const)(
    "is asked for once, and waited for: %s",
    async (result) => {
      const { view, asked, clock } = setUp();
      const both = Promise.all([view.wait("net/10.0.0.1"), view.wait("net/10.0.0.1")]);
      expect(asked).toEqual(["net/10.0.0.1"]);
      view.update("net/10.0.0.2", result);
      view.update("net/10.0.0.1", result);
      await both;
      expect(clock.pendingTimers).toBe(0);
    },
  );

  it("is asked for again by who comes after the answer", async () => {
    const { view, asked } = setUp();
    const first = view.wait("a");
    view.update("a", "absent");
    await first;
    void view.wait("a").catch(() => undefined);
    expect(asked).toEqual(["a", "a"]);
  });

  it("is not taken for absent when nobody answers", async () => {
    const { view, clock } = setUp();
    const refused = expect(view.wait("net/10.0.0.1")).rejects.toMatchObject({
      code: "XDS_UNANSWERED",
      message: "the control plane did not tell us of net/10.0.0.1: waited 5 s",
    });
    await clock.advance(DEMAND_WAIT_MS);
    await refused;
  });

  it.each([
    ["closed", /we are stopping/],
    ["refused", /too many others wait/],
  ] as const)("is not taken for absent when the answer is %s", async (result, reason) => {
    const { view } = setUp();
    const refused = expect(view.wait("a")).rejects.toThrow(reason);
    view.update("a", result);
    await refused;
  });

  it("is waited for by at most so many connections", async () => {
    const { view, clock } = setUp();
    const waits = Array.from({ length: DEMAND_WAITERS_MAX }, (_, i) => view.wait(`n${i % 7}`));
    await expect(view.wait("one-more")).rejects.toThrow(/too many/);
    for (let i = 0; i < 7; i++) view.update(`n${i}`, "absent");
    await Promise.all(waits);
    expect(clock.pendingTimers).toBe(0);
    const late = view.wait("one-more");
    view.update("one-more", "present");
    await late;
  });
});
