import { describe, expect, it } from "vitest";
import { tidyMemory } from "@ambit/common/process/tidy-memory.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { LARGE_UPDATE, LargeUpdates, TIDY_DELAY_MS } from "./large-update.ts";

describe("after an update", () => {
  it.each([
    ["of fewer resources than a large one has", [LARGE_UPDATE - 1], 0],
    ["that is large", [LARGE_UPDATE], 1],
    ["made of several large ones", [LARGE_UPDATE, LARGE_UPDATE + 1], 1],
  ])("%s memory is tidied as often as it should", async (_, updates, times) => {
    const clock = new FakeClock();
    let tidied = 0;
    const large = new LargeUpdates(clock, () => void tidied++);
    for (const resources of updates) {
      large.applied(resources);
      await clock.advance(TIDY_DELAY_MS - 1);
      expect(tidied).toBe(0);
    }
    await clock.advance(1);
    expect([tidied, clock.pendingTimers]).toEqual([times, 0]);
  });

  it("garbage is given back", () => {
    const before = process.memoryUsage().heapUsed;
    Array.from({ length: 300_000 }, (_, i) => [i]);
    tidyMemory();
    expect(process.memoryUsage().heapUsed).toBeLessThan(before + 2 ** 20);
  });
});
