// Parsers for values on the command line. Failures are usage errors.

import { InvalidArgumentError } from "commander";

/** A whole number within bounds. */
export function parseCount(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`use a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}
