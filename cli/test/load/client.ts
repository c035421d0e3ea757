// Load from inside a pod, until it is told to end (SIGTERM). Prints a line for each round, and an Outcome
// when it ends.
//   node client.ts LOAD_OPTIONS_AS_JSON

import { Lasting } from "./lasting.ts";
import { type LoadOptions, ROUND } from "./options.ts";
import { ByRate, OneByOne } from "./requests.ts";
import { Tally } from "./tally.ts";

const ROUND_PERIOD_MS = 100;
/** Whoever started it may be gone. */
const LOAD_MAX_MS = 900_000;

const options = JSON.parse(process.argv[2]!) as LoadOptions;
const { hosts, requests, lasting, answerTimeoutMs } = options;
const asked = requests === "none" ? [] : hosts;
const spoken = hosts.flatMap((host) =>
  Array.from({ length: lasting }, (_, i) => ({ host, name: `${host} ${i}` })),
);
const tally = new Tally(asked, [...asked, ...spoken.map(({ name }) => name)]);
const work = [
  ...(typeof requests === "number"
    ? [new ByRate(requests, options, tally)]
    : asked.map((host) => new OneByOne(host, options, tally))),
  ...spoken.map(({ host, name }) => new Lasting(host, name, answerTimeoutMs, tally)),
];

const rounds = setInterval(() => {
  if (!tally.roundOver) return;
  tally.nextRound();
  console.log(ROUND);
}, ROUND_PERIOD_MS);

/** What was asked is still awaited; then nothing keeps the process. */
function end(): void {
  clearInterval(rounds);
  clearTimeout(limit);
  for (const each of work) each.stop();
}

const limit = setTimeout(end, LOAD_MAX_MS);
process.on("SIGTERM", end);
// Before it ends, not as it ends: then what a pipe has no room for at once would be lost.
process.once("beforeExit", () => console.log(JSON.stringify(tally.outcome())));
