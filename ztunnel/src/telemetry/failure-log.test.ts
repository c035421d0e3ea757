import { describe, expect, it } from "vitest";
import { type Failure, FAILURES_KEPT, FailureLog } from "./failure-log.ts";

const failure = (id: string, changes: Partial<Failure> = {}): Failure => ({
  id,
  reason: "POLICY_DENIED",
  flag: "DENY",
  error: "policy rejection",
  reporter: "destination",
  atMs: 0,
  src: "10.0.0.1:1",
  ...changes,
});

describe("failures", () => {
  it("are counted by reason and reporter, each with the latest connection as exemplar", () => {
    const log = new FailureLog();
    expect(log.collect()).toEqual([]);
    log.record(failure("a"));
    log.record(failure("b"));
    log.record(failure("c", { reporter: "source", reason: "CONNECT_FAILED" }));
    expect(log.collect()).toMatchObject([
      {
        name: "ambit_connection_failures",
        values: [
          {
            labels: { reporter: "destination", reason: "POLICY_DENIED" },
            value: 2,
            exemplar: { id: "b" },
          },
          {
            labels: { reporter: "source", reason: "CONNECT_FAILED" },
            value: 1,
            exemplar: { id: "c" },
          },
        ],
      },
    ]);
  });

  it("are found by id, both sides of a connection that is ours at both", () => {
    const log = new FailureLog();
    log.record(failure("a"));
    log.record(failure("b"));
    log.record(failure("a", { reporter: "source" }));
    expect(log.find("a").map(({ reporter }) => reporter)).toEqual(["destination", "source"]);
    expect(log.find("z")).toEqual([]);
  });

  it("are kept up to a bound; counting goes on", () => {
    const log = new FailureLog();
    for (let i = 0; i <= FAILURES_KEPT; i++) log.record(failure(String(i)));
    expect(log.find("0")).toEqual([]);
    expect(log.find("1")).toHaveLength(1);
    expect(log.collect()[0]?.values[0]?.value).toBe(FAILURES_KEPT + 1);
  });
});
