// The command line: parses, runs one command, and turns every failure into one sentence and an exit
// code: 1 for the environment or the content of input, 2 for usage.

import { CommanderError } from "commander";
import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import { buildProgram } from "./program.ts";

try {
  await buildProgram().parseAsync(process.argv);
} catch (error) {
  process.exitCode = exitCodeOf(error);
}

/** Reports the error unless commander has, and says how to end. */
function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof UserError) {
    console.error(`error: ${error.message}`);
    return error.exitCode;
  }
  const debug = process.env["AMBIT_DEBUG"] !== undefined && error instanceof Error;
  console.error(`error: ${debug ? error.stack : errorMessage(error)}`);
  return 1;
}
