import { describe, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { KeyedQueue } from "./keyed-queue.ts";

/** A queue whose work is finished by hand. */
function harness() {
  const clock = new FakeClock();
  const started: string[] = [];
  const delays: number[] = [];
  const open = new Map<string, PromiseWithResolvers<void>>();
  const queue = new KeyedQueue({
    clock,
    work: (key) => {
      started.push(key);
      const work = Promise.withResolvers<void>();
      open.set(key, work);
      return work.promise;
    },
    onFailure: (_key, _error, retryInMs) => delays.push(retryInMs),
  });
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  const finish = async (key: string, error?: Error) => {
    if (error) open.get(key)!.reject(error);
    else open.get(key)!.resolve();
    await settle();
  };
  return { clock, started, delays, queue, finish };
}

describe("keyed queue", () => {
  it("works on a key once at a time, and again when it changed meanwhile", async () => {
    const { queue, started, finish } = harness();
    for (let i = 0; i < 3; i++) queue.add("a");
    expect(started).toEqual(["a"]);
    await finish("a");
    expect(started).toEqual(["a", "a"]);
    await finish("a");
    expect(started).toHaveLength(2);
  });

  it("works on four keys at once and then on the next", async () => {
    const { queue, started, finish } = harness();
    for (const key of ["a", "b", "c", "d", "e"]) queue.add(key);
    expect(started).toEqual(["a", "b", "c", "d"]);
    await finish("b");
    expect(started.at(-1)).toBe("e");
  });

  it("does not let a busy key hold up the others", async () => {
    const { queue, started } = harness();
    queue.add("a");
    queue.add("a");
    queue.add("b");
    expect(started).toEqual(["a", "b"]);
  });

  it("tries a failed key again with growing delays up to five seconds", async () => {
    const { queue, started, finish, clock, delays } = harness();
    queue.add("a");
    for (let round = 1; round <= 12; round++) {
      await finish("a", new Error("no"));
      await clock.advance(delays.at(-1)!);
      expect(started).toHaveLength(round + 1);
    }
    expect(delays.slice(0, 4)).toEqual([5, 10, 20, 40]);
    expect(delays.at(-1)).toBe(5_000);
  });

  it("starts with short delays again after a success", async () => {
    const { queue, finish, delays, clock } = harness();
    queue.add("a");
    for (let i = 0; i < 3; i++) {
      await finish("a", new Error("no"));
      await clock.advance(delays.at(-1)!);
    }
    await finish("a");
    queue.add("a");
    await finish("a", new Error("no"));
    expect(delays.at(-1)).toBe(5);
  });

  it("does not wait when there is a reason to try at once", async () => {
    const { queue, started, finish } = harness();
    queue.add("a");
    await finish("a", new Error("no"));
    queue.retryNow();
    expect(started).toEqual(["a", "a"]);
  });

  it("starts nothing after closing, and closes when the rest is done", async () => {
    const { queue, started, finish } = harness();
    queue.add("a");
    queue.add("a");
    const closed = queue.close();
    await finish("a");
    await closed;
    queue.add("b");
    expect(started).toEqual(["a"]);
  });
});
