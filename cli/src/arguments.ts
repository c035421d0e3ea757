// Parsers for values on the command line. Failures are usage errors.

import { resolve } from "node:path";
import { InvalidArgumentError } from "commander";

/** NODE=PATH, again for more nodes: absolute paths by node name. */
export function parseNodePath(
  text: string,
  earlier: Readonly<Record<string, string>>,
): Record<string, string> {
  const [, node, path] = /^([^=]+)=(.+)$/.exec(text) ?? [];
  if (node === undefined || path === undefined) {
    throw new InvalidArgumentError("use NODE=PATH, for instance node-2=/usr/local/bin/ztunnel.");
  }
  return { ...earlier, [node]: resolve(path) };
}

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
