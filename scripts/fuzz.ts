// `npm run fuzz [-- --seconds N] [-- --only NAME] [-- --seed N]`: runs every *.fuzz.ts target.
// A target exports `name` and `fuzz(data)`. Inputs are random bytes, mutations of what came before,
// and mutations of the target's own `corpus()`, all drawn from one printed seed.

import { execFileSync } from "node:child_process";
import { resolve } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { parseArgs } from "node:util";
import { InputSource } from "../common/src/testing/fuzz-input.ts";

interface FuzzTarget {
  readonly name: string;
  fuzz(data: Uint8Array): void;
  corpus?(): Uint8Array[];
}

const DEFAULT_SECONDS = 10;
/** Inputs between turns of the event loop: what targets put off (writes, closing) is done, and let go of. */
const INPUTS_A_TURN = 64;

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: String(DEFAULT_SECONDS) },
    only: { type: "string" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
  },
});

function targetFiles(): string[] {
  const listed = execFileSync("git", ["ls-files", "-co", "--exclude-standard", "*.fuzz.ts"], {
    encoding: "utf8",
  });
  return listed.split("\n").filter((file) => file !== "");
}

/** Runs one target for its share of time; returns how many inputs it took. Throws on a finding. */
async function runTarget(target: FuzzTarget, seed: number, seconds: number): Promise<number> {
  const inputs = new InputSource(seed, target.corpus?.() ?? []);
  const deadline = performance.now() + seconds * 1000;
  let count = 0;
  for (; performance.now() < deadline; count++) {
    if (count % INPUTS_A_TURN === 0) await nextTurn();
    const data = inputs.next();
    try {
      target.fuzz(data);
    } catch (error) {
      console.error(`${target.name}: finding after ${count} inputs, seed ${seed}`);
      console.error(`input (base64): ${Buffer.from(data).toString("base64")}`);
      throw error;
    }
  }
  return count;
}

let findings = 0;
let targets = 0;
for (const file of targetFiles()) {
  const target = (await import(resolve(file))) as FuzzTarget;
  if (values.only !== undefined && target.name !== values.only) continue;
  targets++;
  try {
    const count = await runTarget(target, Number(values.seed), Number(values.seconds));
    console.log(`${target.name}: ${count} inputs, no finding`);
  } catch (error) {
    findings++;
    console.error(error);
  }
}
console.log(`${targets} targets, ${findings} findings, seed ${values.seed}`);
if (findings > 0 || targets === 0) process.exitCode = 1;
