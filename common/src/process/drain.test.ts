import { beforeEach, describe, expect, it } from "vitest";
import { FakeClock } from "../testing/fake-clock.ts";
import { CUT_GRACE_MS, Drain } from "./drain.ts";

let clock: FakeClock;
let drain: Drain;

beforeEach(() => {
  clock = new FakeClock();
  drain = new Drain(clock);
});

/** What a drain returned, once it has. */
function watch(draining: Promise<string>): { held: string | undefined } {
  const watched: { held: string | undefined } = { held: undefined };
  void draining.then((held) => (watched.held = held));
  return watched;
}

describe("a drain", () => {
  it("is over at once when nothing is in flight", async () => {
    expect(await drain.drain("graceful", 60_000)).toBe("");
    expect(drain.forced.aborted).toBe(false);
  });

  it.each(["graceful", "immediate"] as const)(
    "that is %s is over when the last thing has let go",
    async (mode) => {
      const [first, second] = [drain.hold("tunnel"), drain.hold("tunnel")];
      const draining = watch(drain.drain(mode, 60_000));
      first.release();
      first.release();
      await clock.advance(0);
      expect(draining.held).toBeUndefined();
      second.release();
      await clock.advance(0);
      expect(draining.held).toBe("");
    },
  );

  it("cuts what is left at the deadline, and waits a moment for it to let go", async () => {
    const hold = drain.hold("tunnel");
    drain.whenForced(() => hold.release());
    const draining = watch(drain.drain("graceful", 1_000));
    await clock.advance(999);
    expect([drain.started.aborted, drain.forced.aborted]).toEqual([true, false]);
    await clock.advance(1);
    expect([drain.forced.aborted, draining.held]).toEqual([true, ""]);
  });

  it.each([
    ["graceful", 1_000],
    ["immediate", 0],
  ] as const)("that is %s does not wait for what is cut and does not end", async (mode, waitMs) => {
    drain.hold("tunnel");
    drain.hold("outbound connection");
    drain.hold("outbound connection");
    drain.hold("SOCKS connection").release();
    const draining = watch(drain.drain(mode, 1_000));
    await clock.advance(waitMs);
    await clock.advance(CUT_GRACE_MS - 1);
    expect(draining.held).toBeUndefined();
    await clock.advance(1);
    expect(draining.held).toBe("tunnel: 1, outbound connection: 2");
  });
});
