import { describe, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { Debounce } from "./debounce.ts";

function start() {
  const clock = new FakeClock();
  const fired: number[] = [];
  const debounce = new Debounce({
    clock,
    afterMs: 100,
    maxMs: 1_000,
    fire: (waitedMs) => fired.push(waitedMs),
  });
  return { clock, fired, debounce };
}

describe("the debounce", () => {
  it("fires once, after the quiet time", async () => {
    const { clock, fired, debounce } = start();
    debounce.touch();
    await clock.advance(60);
    debounce.touch();
    await clock.advance(99);
    expect(fired).toEqual([]);
    await clock.advance(1);
    expect(fired).toEqual([160]);
    expect(clock.pendingTimers).toBe(0);
  });

  it("fires at the maximum when changes never pause", async () => {
    const { clock, fired, debounce } = start();
    for (let i = 0; i < 40; i++) {
      debounce.touch();
      await clock.advance(50);
    }
    expect(fired).toEqual([1_000, 1_000]);
  });

  it("does nothing after it is cancelled", async () => {
    const { clock, fired, debounce } = start();
    debounce.touch();
    debounce.cancel();
    await clock.advance(5_000);
    expect(fired).toEqual([]);
  });
});
