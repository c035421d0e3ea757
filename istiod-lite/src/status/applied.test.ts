import { describe, expect, it } from "vitest";
import type { ResourceKey } from "@ambit/common/resources/source.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import type { Acknowledgement } from "@ambit/common/xds/delta-server.ts";
import { AppliedTracker } from "./applied.ts";
import type { Condition, Enforcement } from "./object-status.ts";

const KEY: ResourceKey & { kind: "AuthorizationPolicy" } = {
  kind: "AuthorizationPolicy",
  namespace: "shop",
  name: "p",
};
const AT_PODS: Enforcement = { kind: "proxies", where: "every ztunnel", resource: "shop/p" };

function setUp() {
  const clock = new FakeClock();
  const decided: Condition[] = [];
  let told: Acknowledgement = { clients: 2, waiting: ["b.s", "a.s"], rejections: [] };
  let asked = 0;
  const tracker = new AppliedTracker({
    clock,
    epoch: () => 7,
    acknowledgement: (epoch) => (asked++, expect(epoch).toBe(7), told),
    onDecided: (key, condition) => (expect(key).toBe(KEY), decided.push(condition)),
  });
  const track = (enforcement: Enforcement | undefined = AT_PODS) =>
    tracker.track([{ key: KEY, conditions: [], enforcement }]);
  /** Proxies made this progress; looks at it. */
  const progress = async (change: Partial<Acknowledgement>) => {
    told = { ...told, ...change };
    tracker.touch();
    await clock.advance(50);
  };
  return { clock, decided, tracker, track, progress, asked: () => asked };
}

describe("a rule", () => {
  it("is applied once every ztunnel has acknowledged it, and is then left alone", async () => {
    const { decided, track, progress, asked } = setUp();
    track();
    await progress({ waiting: ["a.s"] });
    expect(decided).toEqual([]);
    await progress({ waiting: [] });
    expect(decided).toEqual([
      {
        type: "ambit.io/Applied",
        status: "True",
        reason: "Acknowledged",
        message: "in force at every ztunnel: acknowledged by 2 ztunnels",
      },
    ]);
    const before = asked();
    await progress({ clients: 3, waiting: ["c.s"] });
    expect(asked()).toBe(before);
  });

  it("that takes long says who is waited for, naming three", async () => {
    const { clock, decided, track, progress } = setUp();
    await clock.advance(30_000);
    track();
    await progress({ clients: 5, waiting: ["d.s", "c.s", "b.s", "a.s"] });
    expect(decided).toEqual([]);
    await clock.advance(2_000);
    expect(decided.at(-1)).toMatchObject({
      status: "False",
      reason: "Pending",
      message: "acknowledged by 1 of 5 ztunnels; waiting for a.s, b.s, c.s and 1 more",
    });
    await progress({ waiting: [] });
    expect(decided.at(-1)?.reason).toBe("Acknowledged");
  });

  it("is told of when no ztunnel is there", async () => {
    const { clock, decided, track, progress } = setUp();
    track();
    await progress({ clients: 0, waiting: [] });
    // They may only have to come back after a restart of the control plane.
    await clock.advance(29_000);
    expect(decided).toEqual([]);
    await clock.advance(3_000);
    expect(decided.at(-1)?.reason).toBe("NoProxies");
  });

  it("that a ztunnel refuses says which and why, until it is mended", async () => {
    const { decided, track, progress } = setUp();
    track();
    const rejections = [
      { proxy: "a.s", reason: "shop/other: bad" },
      { proxy: "b.s", reason: "shop/p: port 70000" },
    ];
    await progress({ waiting: [], rejections });
    expect(decided.at(-1)).toMatchObject({
      reason: "Rejected",
      message: "refused by b.s: shop/p: port 70000",
    });
    await progress({ rejections: rejections.slice(0, 1) });
    expect(decided.at(-1)?.reason).toBe("Acknowledged");
  });

  it("that nobody enforces says so at once", () => {
    const { decided, track } = setUp();
    track();
    track({ kind: "nobody", why: "it is in vain" });
    expect(decided).toMatchObject([
      { status: "False", reason: "NotEnforced", message: "it is in vain" },
    ]);
  });

  it("that is gone, or no matter of proxies any more, is forgotten", async () => {
    const { clock, decided, tracker, track, progress } = setUp();
    track();
    tracker.forget(KEY);
    await progress({ waiting: [] });
    track();
    tracker.track([{ key: KEY, conditions: [] }]);
    await progress({});
    expect(decided).toEqual([]);
    track();
    tracker.close();
    await clock.advance(10_000);
    expect([decided, clock.pendingTimers]).toEqual([[], 0]);
  });
});
