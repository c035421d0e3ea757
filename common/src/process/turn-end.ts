// What is put off to the end of the event loop's turn, so that what one turn brings is done together. Where a
// loop of our own takes events (sys/fd-loop.ts), a turn is what it has taken at once; else it is Node's.

import { throwLater } from "./throw-later.ts";

let waiting: (() => void)[] = [];
/** A loop of our own takes events, and will run what waits. */
let held = false;

/** Calls it once, when everything that this turn has brought was told of; never before it returns. */
export function atTurnEnd(callback: () => void): void {
  if (waiting.length === 0 && !held) setImmediate(runTurnEnd);
  waiting.push(callback);
}

/** Whether there is anything to run. */
export function turnEndWaits(): boolean {
  return waiting.length > 0;
}

/** Runs what waits; what is put off meanwhile belongs to the next turn. What one throws is thrown later. */
export function runTurnEnd(): void {
  const callbacks = waiting;
  waiting = [];
  for (const callback of callbacks) {
    try {
      callback();
    } catch (error) {
      throwLater(error);
    }
  }
}

/** From now on turns are the caller's: it calls `runTurnEnd`, until it calls `releaseTurns`. */
export function holdTurns(): void {
  held = true;
}

/** Turns are Node's again, and so is what still waits. */
export function releaseTurns(): void {
  held = false;
  if (waiting.length > 0) setImmediate(runTurnEnd);
}
