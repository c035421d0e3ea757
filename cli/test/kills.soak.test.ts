// Programs of the mesh killed without warning at random moments under load, one after the other, in a
// STRICT namespace. `SOAK_KILLS=30 SOAK_SEED=7 npm run soak` repeats a run.

import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { seededRandom } from "@ambit/common/testing/fuzz-input.ts";
import { Lab } from "./lab.ts";
import { kill, slowness } from "./blows.ts";
import { type Gap, underLoad } from "./load/load.ts";
import { plaintextPackets, STRICT, watchForPlaintext } from "./plaintext.ts";
import { SHOP } from "./shop.ts";

/** Each costs some seconds: the suite makes do with few, acceptance asks for thirty. */
const KILLS = Number(process.env["SOAK_KILLS"] ?? 5);
const SEED = Number(process.env["SOAK_SEED"] ?? Date.now() % 2 ** 31);
/** One load lasts for this many kills. */
const KILLS_PER_LOAD = 5;

/** From one kill to the next: recovery, and some of the load in peace. */
const PAUSE_MIN_MS = 3_500;
const PAUSE_MAX_MS = 6_000;
/** After the last kill of a load. */
const TAIL_MS = 4_000;
/** A request that hangs is given up before it hides what comes after. */
const ANSWER_TIMEOUT_MS = 3_000;

/** Where nothing else runs; see `slowness`. */
const RECOVERY_MAX_MS = 2_000;
const RUN_MAX_MS = 20_000 + KILLS * 2 * PAUSE_MAX_MS;

const PROGRAMS: readonly (readonly [name: string, node?: string])[] = [
  ["ztunnel", "node-1"],
  ["ztunnel", "node-2"],
  ["cni-agent", "node-1"],
  ["cni-agent", "node-2"],
  ["istiod-lite"],
];

const lab = new Lab();
const random = seededRandom(SEED);

beforeAll(async () => {
  await lab.up(SHOP + STRICT);
  await watchForPlaintext(lab);
});
afterAll(() => lab.down());

interface Blow {
  readonly afterMs: number;
  readonly program: (typeof PROGRAMS)[number];
}

interface Struck extends Blow {
  readonly atMs: number;
}

function draw(count: number): Blow[] {
  return Array.from({ length: count }, () => ({
    afterMs: PAUSE_MIN_MS + random() * (PAUSE_MAX_MS - PAUSE_MIN_MS),
    program: PROGRAMS[Math.floor(random() * PROGRAMS.length)]!,
  }));
}

async function strike(blows: readonly Blow[]): Promise<Struck[]> {
  const struck: Struck[] = [];
  for (const blow of blows) {
    await pause(blow.afterMs);
    await kill(lab, ...blow.program);
    struck.push({ ...blow, atMs: Date.now() });
  }
  return struck;
}

function report({ program, atMs }: Struck, gaps: readonly Gap[]): string {
  const own = gaps.filter(({ fromMs, toMs }) => toMs > atMs && fromMs < atMs + PAUSE_MIN_MS);
  const longest = Math.max(0, ...own.map(({ fromMs, toMs }) => toMs - fromMs));
  return `${program.join(" on ")}: ${longest === 0 ? "not noticed" : `${longest} ms`}`;
}

it(
  `${KILLS} kills at moments of seed ${SEED}: back in time, and never in plain text`,
  async () => {
    const lines: string[] = [];
    for (let left = KILLS; left > 0; left -= KILLS_PER_LOAD) {
      const blows = draw(Math.min(left, KILLS_PER_LOAD));
      let struck: Struck[] = [];
      const options = { answerTimeoutMs: ANSWER_TIMEOUT_MS };
      const { sent, gaps } = await underLoad(lab, options, async () => {
        struck = await strike(blows);
        await pause(TAIL_MS);
      });
      const allowedMs = RECOVERY_MAX_MS * slowness();
      lines.push(`at most ${Math.round(allowedMs)} ms`, ...struck.map((one) => report(one, gaps)));
      expect(sent).toBeGreaterThan(blows.length * 20);
      const late = gaps.filter(({ fromMs, toMs }) => toMs - fromMs > allowedMs);
      expect(late, `seed ${SEED}`).toEqual([]);
      expect(await plaintextPackets(lab), `seed ${SEED}`).toEqual([0, 0]);
    }
    console.log(`seed ${SEED}\n${lines.join("\n")}`);
  },
  RUN_MAX_MS,
);
