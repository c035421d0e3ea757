// What every program does around its work: turn a UserError into one sentence and an exit code, and
// signals into a drain.

import { errorMessage, UserError } from "./errors.ts";

/** Runs a program's main function; failures end the process with code 1, usage errors with 2. */
export async function runMain(main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    const text =
      error instanceof UserError
        ? error.message
        : error instanceof Error
          ? error.stack
          : errorMessage(error);
    process.stderr.write(`error: ${text}\n`);
    process.exit(error instanceof UserError ? error.exitCode : 1);
  }
}

/** Calls `stop` on the first SIGTERM or SIGINT; a second SIGINT exits at once (ztunnel §7.5). */
export function onStopSignal(stop: (signal: NodeJS.Signals) => void): void {
  let stopping = false;
  const handle = (signal: NodeJS.Signals) => {
    if (stopping && signal === "SIGINT") process.exit(0);
    if (stopping) return;
    stopping = true;
    stop(signal);
  };
  process.on("SIGTERM", handle);
  process.on("SIGINT", handle);
}
