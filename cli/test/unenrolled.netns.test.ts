// Pods that leave the mesh and come back while they are talked to: no request fails, no connection is
// cut before its time, and where STRICT is asked for nothing plain is served at any moment.

import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";
import { type Outcome, underLoad } from "./load/load.ts";
import { STRICT } from "./plaintext.ts";
import { SHOP } from "./shop.ts";

const MODE = "istio.io/dataplane-mode";
const DRAIN_MS = 5_000;
/** The load goes on for so long after the last thing that happens. */
const TAIL_MS = 1_500;
const SOON = { timeout: 10_000, interval: 50 };

const lab = new Lab({ UNENROLMENT_DRAIN: `${DRAIN_MS}ms` });

beforeAll(() => lab.up(SHOP));
afterAll(() => lab.down());

const meshOf = async (name: string) => (await lab.pod(name)).mesh;

async function setMode(name: string, mode: "ambient" | "none"): Promise<void> {
  await lab.must("local", "label", "pod", name, "-n", "shop", `${MODE}=${mode}`);
  const enrolled = async () => (await meshOf(name)) === "enrolled";
  await expect.poll(enrolled, SOON).toBe(mode === "ambient");
}

interface KnownWorkload {
  readonly name: string;
  readonly protocol: string;
}

/** Resolves when both ztunnels know how the pod is reached now. */
async function everybodyKnows(name: string, protocol: "HBONE" | "NONE"): Promise<void> {
  for (const node of ["node-1", "node-2"]) {
    const known = async () => {
      const text = await lab.must("ztunnel", "workloads", "--node", node, "-o", "json");
      return (JSON.parse(text) as KnownWorkload[]).find((each) => each.name === name)?.protocol;
    };
    await expect.poll(known, SOON).toBe(protocol);
  }
}

/** Leaves the mesh; resolves when the drain is over and the agent has let go of the pod. */
async function leaveForGood(name: string, node: string): Promise<void> {
  const line = `pod left the mesh\tnamespace="shop" pod="${name}"`;
  const times = async () => {
    const log = await lab.must("local", "logs", "cni-agent", "--node", node);
    return log.split(line).length - 1;
  };
  const before = await times();
  await setMode(name, "none");
  const timeout = DRAIN_MS + SOON.timeout;
  await expect.poll(times, { ...SOON, timeout }).toBeGreaterThan(before);
}

function expectNoFailure({ sent, failures }: Outcome): void {
  expect(failures).toEqual([]);
  expect(sent).toBeGreaterThan(100);
}

describe("under load", () => {
  it.each(["near", "client"])(
    "%s leaves and comes back while it drains, and no request fails",
    async (name) => {
      const outcome = await underLoad(lab, {}, async () => {
        const startMs = performance.now();
        await setMode(name, "none");
        await everybodyKnows(name, "NONE");
        await setMode(name, "ambient");
        await everybodyKnows(name, "HBONE");
        await pause(startMs + DRAIN_MS + TAIL_MS - performance.now());
      });
      expectNoFailure(outcome);
    },
  );

  it.each([
    ["far", "node-2"],
    ["near", "node-1"],
    ["client", "node-1"],
  ])("%s leaves for good, and no request fails", async (name, node) => {
    const outcome = await underLoad(lab, {}, async () => {
      await leaveForGood(name, node);
      await pause(TAIL_MS);
    });
    expectNoFailure(outcome);
    await setMode(name, "ambient");
    await everybodyKnows(name, "HBONE");
  });
});

/** One connection from client to far, spoken on all the time. */
const ONE = { hosts: ["far"], requests: "none", lasting: 1 } as const;

describe("a connection", () => {
  it("goes on when its pod comes back before the drain is over", async () => {
    const { cuts, talks } = await underLoad(lab, ONE, async () => {
      const startMs = performance.now();
      await setMode("far", "none");
      await setMode("far", "ambient");
      await pause(startMs + DRAIN_MS + TAIL_MS - performance.now());
    });
    expect(cuts).toEqual([]);
    expect(talks).toBeGreaterThan(50);
  });

  it("is reset, not ended, when the drain is over", async () => {
    let startMs = 0;
    const { cuts } = await underLoad(lab, ONE, async (load) => {
      startMs = Date.now();
      await leaveForGood("client", "node-1");
      await load.rounds(2);
    });
    expect(cuts).toMatchObject([{ why: "ECONNRESET" }]);
    expect(cuts[0]!.atMs - startMs).toBeGreaterThanOrEqual(DRAIN_MS);
    await setMode("client", "ambient");
    await everybodyKnows("client", "HBONE");
  });
});

describe("where STRICT is asked for", () => {
  it("a client that leaves is refused until it is back, however often it goes", async () => {
    await lab.whileApplied(STRICT, async () => {
      const plain = () => lab.reach("legacy.outside", "http://far.shop/");
      await expect.poll(plain, SOON).toBe("refused");
      for (let round = 0; round < 3; round++) {
        await setMode("client", "none");
        expect(await lab.reach("client.shop", "http://far/")).toBe("refused");
        expect(await lab.reach("client.shop", "http://near/")).toBe("refused");
        await setMode("client", "ambient");
        expect(await lab.reach("client.shop", "http://far/")).toBe("reached");
        expect(await plain()).toBe("refused");
      }
    });
  });

  it("a server that comes back serves nothing plain from the moment it is enrolled", async () => {
    await lab.whileApplied(STRICT, async () => {
      const plain = () => lab.reach("legacy.outside", "http://far.shop/");
      await expect.poll(plain, SOON).toBe("refused");
      await setMode("far", "none");
      expect(await plain()).toBe("reached");
      await setMode("far", "ambient");
      expect(await plain()).toBe("refused");
    });
  });
});
