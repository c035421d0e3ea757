import { describe, expect, it } from "vitest";
import { tidyMemory } from "@ambit/common/process/tidy-memory.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import {
  CHECK_INTERVAL_MS,
  GROWN_BYTES,
  QUIET_MS,
  QUIET_SHARE,
  TIDY_INTERVAL_MS,
  tidyWhenIdle,
} from "./idle-memory.ts";

const LIVE_BYTES = 20 << 20;

/** A thread of which a tidy one has `LIVE_BYTES`. */
function setUp() {
  const clock = new FakeClock();
  const tidied: string[] = [];
  const thread = {
    busy: 0,
    bytes: LIVE_BYTES,
    busyShare: () => thread.busy,
    heapBytes: () => thread.bytes,
    tidy: (code: string) => {
      tidied.push(code);
      thread.bytes = LIVE_BYTES;
    },
  };
  tidyWhenIdle(clock, thread);
  return { clock, thread, tidied };
}

describe("a thread", () => {
  it("is tidied once after it has started, and not again while its heap stays", async () => {
    const { clock, tidied } = setUp();
    await clock.advance(100 * CHECK_INTERVAL_MS);
    expect(tidied).toEqual(["flushed"]);
  });

  it.each([
    ["by less than is worth it", GROWN_BYTES - 1, []],
    ["by what is worth it", GROWN_BYTES, ["kept"]],
  ])("whose heap has grown since %s", async (_, grown, expected) => {
    const { clock, thread, tidied } = setUp();
    await clock.advance(TIDY_INTERVAL_MS + CHECK_INTERVAL_MS);
    tidied.length = 0;
    thread.bytes += grown;
    await clock.advance(2 * CHECK_INTERVAL_MS);
    expect(tidied).toEqual(expected);
  });

  it("is left alone while it is busy", async () => {
    const { clock, thread, tidied } = setUp();
    thread.busy = QUIET_SHARE;
    await clock.advance(100 * CHECK_INTERVAL_MS);
    expect(tidied).toEqual([]);
    thread.busy = QUIET_SHARE - 0.001;
    await clock.advance(CHECK_INTERVAL_MS);
    expect(tidied).toEqual(["flushed"]);
  });

  it("is left alone until it has been quiet for a while, as who was there may come back", async () => {
    const { clock, thread, tidied } = setUp();
    await clock.advance(CHECK_INTERVAL_MS);
    tidied.length = 0;
    thread.bytes += GROWN_BYTES;
    for (let burst = 0; burst < 5; burst++) {
      thread.busy = 0.5;
      await clock.advance(CHECK_INTERVAL_MS);
      thread.busy = 0;
      await clock.advance(QUIET_MS - CHECK_INTERVAL_MS);
    }
    expect(tidied).toEqual([]);
    await clock.advance(CHECK_INTERVAL_MS);
    expect(tidied).toEqual(["kept"]);
  });

  it("is not tidied too often, however fast its heap grows", async () => {
    const { clock, thread, tidied } = setUp();
    for (let passedMs = 0; passedMs < 10 * TIDY_INTERVAL_MS; passedMs += CHECK_INTERVAL_MS) {
      thread.bytes += 2 * GROWN_BYTES;
      await clock.advance(CHECK_INTERVAL_MS);
    }
    expect(tidied).toHaveLength(10);
  });

  it("whose heap V8 has made smaller is tidied after the growth from there", async () => {
    const { clock, thread, tidied } = setUp();
    await clock.advance(TIDY_INTERVAL_MS + CHECK_INTERVAL_MS);
    thread.bytes -= GROWN_BYTES;
    await clock.advance(CHECK_INTERVAL_MS);
    thread.bytes += GROWN_BYTES;
    await clock.advance(CHECK_INTERVAL_MS);
    expect(tidied).toEqual(["flushed", "kept"]);
  });
});

it.each(["kept", "flushed"] as const)("garbage is given back, code is %s", (code) => {
  const before = process.memoryUsage().heapUsed;
  Array.from({ length: 300_000 }, (_, i) => [i]);
  tidyMemory(code);
  expect(process.memoryUsage().heapUsed).toBeLessThan(before + 2 ** 20);
});
