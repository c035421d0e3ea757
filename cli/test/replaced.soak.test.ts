// `ambit local restart`: programs replaced while 500 requests a second run, on new connections and on ones
// that stay. Nothing fails, nothing is reset, and nothing goes in plain text.

import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";
import { Load, type Outcome } from "./load/load.ts";
import { plaintextPackets, STRICT, watchForPlaintext } from "./plaintext.ts";
import { SHOP } from "./shop.ts";

const REQUESTS_PER_SECOND = Number(process.env["LOAD_RPS"] ?? 500);
/** A restart of ztunnel starts two, one after the other; the others start one. */
const LONG_S = 20;
const SHORT_S = 9;
/** Connections that stay, and talk all the time. */
const LASTING_PER_HOST = 2;
/** The suite's machine has other work, too: the load is offered, not all of it is taken in time. */
const TAKEN_MIN = 0.5;

/** Longer than the load, so that what lasts is handed nowhere: it ends by itself. */
const lab = new Lab({ CONNECTION_TERMINATION_DEADLINE: "60s" });

beforeAll(async () => {
  await lab.up(SHOP + STRICT);
  await watchForPlaintext(lab);
});
afterAll(() => lab.down());

/** Restarts a program at the beginning of a load. */
async function underLoad(seconds: number, ...program: string[]): Promise<Outcome> {
  const options = { requests: REQUESTS_PER_SECOND, lasting: LASTING_PER_HOST };
  const load = await Load.start(lab, options);
  const [, outcome] = await Promise.all([
    lab.must("local", "restart", ...program),
    pause(seconds * 1000).then(() => load.stop()),
  ]);
  return outcome;
}

function expectNothingLost({ sent, failures, talks, cuts }: Outcome, seconds: number): void {
  expect({ failures, cuts }).toEqual({ failures: [], cuts: [] });
  expect(sent).toBeGreaterThan(REQUESTS_PER_SECOND * seconds * TAKEN_MIN);
  expect(talks).toBeGreaterThan(seconds);
}

describe("replaced under load, without one failed request or reset", () => {
  it.each([
    ["ztunnel", "node-1"],
    ["ztunnel", "node-2"],
  ])("%s on %s", async (name, node) => {
    const before = await lab.component(name, node);
    expectNothingLost(await underLoad(LONG_S, name, "--node", node), LONG_S);
    expect((await lab.component(name, node)).pid).not.toBe(before.pid);
    expect(await plaintextPackets(lab)).toEqual([0, 0]);
  });

  it.each(["cni-agent", "istiod-lite"])("%s", async (name) => {
    expectNothingLost(await underLoad(SHORT_S, name), SHORT_S);
    expect(await plaintextPackets(lab)).toEqual([0, 0]);
  });
});

it("restart names the nodes that there are", async () => {
  const { code, stderr } = await lab.ambit("local", "restart", "ztunnel", "--node", "node-9");
  expect([code, stderr]).toEqual([1, expect.stringContaining("node-1, node-2")]);
});
