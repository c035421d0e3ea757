import { describe, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { TestCa } from "@ambit/common/testing/test-ca.ts";
import type { WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import { type Identity, spiffeId, type SpiffeId } from "@ambit/common/tls/identity.ts";
import type { CaClient } from "./ca-client.ts";
import {
  CONCURRENT_FETCHES_MAX,
  Priority,
  SecretManager,
  type SecretState,
} from "./secret-manager.ts";

const HOUR_MS = 3_600_000;
const issued = new TestCa().issue(identity("any"));

function identity(serviceAccount: string): Identity {
  return { trustDomain: "cluster.local", namespace: "ns", serviceAccount };
}

const id = (account: string): SpiffeId => spiffeId(identity(account));

/** A CA whose answers the test gives one by one. */
class ScriptedCa implements CaClient {
  readonly asked: string[] = [];
  readonly #waiting: PromiseWithResolvers<WorkloadCertificate>[] = [];
  closed = false;

  fetch({ serviceAccount }: Identity): Promise<WorkloadCertificate> {
    this.asked.push(serviceAccount);
    const answer = Promise.withResolvers<WorkloadCertificate>();
    this.#waiting.push(answer);
    return answer.promise;
  }

  close(): void {
    this.closed = true;
  }

  answer(certificate: WorkloadCertificate): void {
    this.#waiting.shift()!.resolve(certificate);
  }

  refuse(reason: string): void {
    this.#waiting.shift()!.reject(new Error(reason));
  }
}

function setUp(random = 0.5) {
  const ca = new ScriptedCa();
  const clock = new FakeClock();
  const seen: [SpiffeId, string | undefined][] = [];
  const manager = new SecretManager({
    ca,
    clock,
    random: () => random,
    onChange: (spiffe, state) => seen.push([spiffe, describeState(state)]),
  });
  const certificate = (lifeMs: number, bornMs = clock.nowMs()): WorkloadCertificate => ({
    ...issued,
    notBeforeMs: bornMs,
    notAfterMs: bornMs + lifeMs,
  });
  /** The oldest fetch ends, and everything that follows from it at once. */
  const answer = async (given: WorkloadCertificate) => {
    ca.answer(given);
    await clock.advance(0);
  };
  const refuse = async (reason: string) => {
    ca.refuse(reason);
    await clock.advance(0);
  };
  return { ca, clock, seen, manager, certificate, answer, refuse };
}

function describeState(state: SecretState | undefined): string | undefined {
  return state?.state === "unavailable" ? state.reason : state?.state;
}

describe("a certificate", () => {
  it("is renewed at half of its life, and not before", async () => {
    const { ca, clock, manager, certificate, seen, answer } = setUp();
    manager.want(id("a"), Priority.realTime);
    await answer(certificate(HOUR_MS));
    await clock.advance(HOUR_MS / 2 - 1);
    expect(ca.asked).toEqual(["a"]);
    await clock.advance(1);
    expect(ca.asked).toEqual(["a", "a"]);
    await answer(certificate(HOUR_MS));
    expect(seen).toEqual([
      [id("a"), "available"],
      [id("a"), "available"],
    ]);
  });

  it("that is past its half-life when it comes is not asked for in a loop", async () => {
    const { ca, clock, manager, certificate, answer } = setUp();
    manager.want(id("a"), Priority.realTime);
    await answer(certificate(HOUR_MS, clock.nowMs() - HOUR_MS * 0.9));
    await clock.advance(999);
    expect(ca.asked).toHaveLength(1);
    await clock.advance(1);
    expect(ca.asked).toHaveLength(2);
  });

  it("is kept while it holds though renewing fails, and lost when it expires", async () => {
    const { ca, clock, manager, certificate, seen, answer, refuse } = setUp();
    manager.want(id("a"), Priority.realTime);
    await answer(certificate(4_000));
    await clock.advance(2_000);
    await refuse("no");
    await clock.advance(1_000);
    expect(seen).toEqual([[id("a"), "available"]]);
    await refuse("still no");
    await clock.advance(1_000); // Its end comes before the back-off's two seconds.
    expect(ca.asked).toHaveLength(4);
    await refuse("never");
    expect(seen.at(-1)).toEqual([id("a"), "never"]);
  });
});

describe("a failure", () => {
  it("is told at once and tried again after 1, 2, 4, … seconds, 150 at most", async () => {
    const { ca, clock, manager, seen, refuse } = setUp();
    manager.want(id("a"), Priority.realTime);
    const delays: number[] = [];
    for (let i = 0; i < 10; i++) {
      await refuse("down");
      const asked = ca.asked.length;
      let waitedMs = 0;
      while (ca.asked.length === asked) {
        await clock.advance(500);
        waitedMs += 500;
      }
      delays.push(waitedMs / 1_000);
    }
    expect(delays).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 150, 150]);
    expect(seen[0]).toEqual([id("a"), "down"]);
  });

  it.each([
    [0, 800],
    [1, 1_200],
  ])("is spread by a fifth: random %d waits %d ms", async (random, delayMs) => {
    const { ca, clock, manager, refuse } = setUp(random);
    manager.want(id("a"), Priority.realTime);
    await refuse("down");
    await clock.advance(delayMs - 1);
    expect(ca.asked).toHaveLength(1);
    await clock.advance(1);
    expect(ca.asked).toHaveLength(2);
  });

  it("is forgotten after a success: the next one waits a second again", async () => {
    const { ca, clock, manager, certificate, answer, refuse } = setUp();
    manager.want(id("a"), Priority.realTime);
    await refuse("down");
    await clock.advance(1_000);
    await answer(certificate(10_000));
    await clock.advance(5_000);
    await refuse("down");
    await clock.advance(999);
    expect(ca.asked).toHaveLength(3);
    await clock.advance(1);
    expect(ca.asked).toHaveLength(4);
  });
});

describe("many identities", () => {
  it("are fetched eight at a time, the most urgent first, then the oldest", async () => {
    const { ca, clock, manager, certificate, answer } = setUp();
    for (let i = 0; i < CONCURRENT_FETCHES_MAX; i++)
      manager.want(id(`early-${i}`), Priority.warmup);
    const late = [
      ["background", Priority.background],
      ["warm-1", Priority.warmup],
      ["warm-2", Priority.warmup],
      ["urgent", Priority.realTime],
    ] as const;
    for (const [account, priority] of late) {
      manager.want(id(account), priority);
      await clock.advance(1);
    }
    expect(ca.asked).toHaveLength(CONCURRENT_FETCHES_MAX);
    for (let i = 0; i < late.length; i++) {
      await answer(certificate(HOUR_MS));
    }
    expect(ca.asked.slice(CONCURRENT_FETCHES_MAX)).toEqual([
      "urgent",
      "warm-1",
      "warm-2",
      "background",
    ]);
  });

  it("wanted again while they wait move up, and are fetched once", async () => {
    const { ca, manager, certificate, answer } = setUp();
    for (let i = 0; i < CONCURRENT_FETCHES_MAX; i++)
      manager.want(id(`early-${i}`), Priority.warmup);
    for (const account of ["first", "second"]) manager.want(id(account), Priority.warmup);
    manager.want(id("second"), Priority.realTime);
    await answer(certificate(HOUR_MS));
    await answer(certificate(HOUR_MS));
    expect(ca.asked.slice(CONCURRENT_FETCHES_MAX)).toEqual(["second", "first"]);
  });
});

describe("an identity", () => {
  it("that is known is repeated to who wants it again", async () => {
    const { ca, manager, certificate, seen, answer } = setUp();
    manager.want(id("a"), Priority.realTime);
    await answer(certificate(HOUR_MS));
    manager.want(id("a"), Priority.warmup);
    expect(seen).toHaveLength(2);
    expect(ca.asked).toEqual(["a"]);
  });

  it("that was forgotten is not renewed, and a late answer is dropped", async () => {
    const { ca, clock, manager, certificate, seen, answer } = setUp();
    manager.want(id("a"), Priority.realTime);
    manager.want(id("b"), Priority.realTime);
    await answer(certificate(HOUR_MS));
    manager.forget(id("a"));
    manager.forget(id("b"));
    await answer(certificate(HOUR_MS));
    await clock.advance(2 * HOUR_MS);
    expect(ca.asked).toEqual(["a", "b"]);
    expect(seen).toEqual([
      [id("a"), "available"],
      [id("a"), undefined],
      [id("b"), undefined],
    ]);
    expect([manager.secrets, clock.pendingTimers]).toEqual([[], 0]);
  });

  it("must be a SPIFFE identity", () => {
    const { manager } = setUp();
    expect(() => manager.want("nobody" as SpiffeId, Priority.realTime)).toThrow(/nobody/);
  });

  it("leaves no timer behind when the manager closes", async () => {
    const { ca, clock, manager, certificate, answer } = setUp();
    manager.want(id("a"), Priority.realTime);
    await answer(certificate(HOUR_MS));
    manager.close();
    expect([clock.pendingTimers, ca.closed]).toEqual([0, true]);
  });
});
