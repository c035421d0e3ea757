import { describe, expect, it } from "vitest";
import { Drain } from "@ambit/common/process/drain.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { Connection } from "./connection.ts";
import { ProxyError } from "./proxy-error.ts";

const FIRST = new ProxyError("POLICY_CHANGED", "first");
const SECOND = new ProxyError("DRAINED", "second");

describe("aborting a connection", () => {
  it("cuts what was registered, once, and the first reason stays", () => {
    const connection = new Connection("a");
    let cuts = 0;
    connection.onAbort(() => cuts++);
    connection.abort(FIRST);
    connection.abort(SECOND);
    expect([cuts, connection.error]).toEqual([1, FIRST]);
  });

  it("cuts what is registered afterwards at once", () => {
    const connection = new Connection("a");
    connection.abort(FIRST);
    let cuts = 0;
    connection.onAbort(() => cuts++);
    expect(cuts).toBe(1);
  });
});

describe("waiting for a step of a connection", () => {
  it("gives its result or its failure", async () => {
    const connection = new Connection("a");
    const none = () => expect.unreachable();
    expect(await connection.unlessAborted(Promise.resolve(1), none)).toBe(1);
    await expect(connection.unlessAborted(Promise.reject(SECOND), none)).rejects.toBe(SECOND);
  });

  it("ends with the abort, and what comes later is discarded", async () => {
    const connection = new Connection("a");
    const step = Promise.withResolvers<number>();
    const late: number[] = [];
    const waited = connection.unlessAborted(step.promise, (result) => late.push(result));
    connection.abort(FIRST);
    await expect(waited).rejects.toBe(FIRST);
    step.resolve(7);
    await step.promise;
    expect(late).toEqual([7]);
  });

  it("does not begin when the abort was before", async () => {
    const connection = new Connection("a");
    connection.abort(FIRST);
    const late: number[] = [];
    const waited = connection.unlessAborted(Promise.resolve(7), (result) => late.push(result));
    await expect(waited).rejects.toBe(FIRST);
    expect(late).toEqual([7]);
  });
});

describe("a connection and its pod", () => {
  it.each([
    ["immediate", "POD_REMOVED", /^connection closed due to connection drain: the pod left/],
    ["graceful", "DRAINED", /^connection closed due to connection drain$/],
  ] as const)("end together: %s is %s", async (mode, code, message) => {
    const clock = new FakeClock();
    const drain = new Drain(clock);
    const connection = new Connection("a");
    const hold = drain.hold("test");
    connection.endWith(drain);
    void drain.drain(mode, 1_000);
    await clock.advance(999);
    expect(connection.error === undefined).toBe(mode === "graceful");
    await clock.advance(1);
    expect(connection.error).toMatchObject({ code, message: expect.stringMatching(message) });
    hold.release();
  });

  it("do not when it was over before", async () => {
    const drain = new Drain(new FakeClock());
    const connection = new Connection("a");
    connection.endWith(drain).leave();
    await drain.drain("immediate", 0);
    expect(connection.error).toBeUndefined();
  });
});
