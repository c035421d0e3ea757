// How many CPUs this machine could ever have: per-CPU maps have a copy for each.

import { readFileSync } from "node:fs";

/** By the text of /sys/devices/system/cpu/possible, for instance "0-3,8". */
export function possibleCpus(
  text = readFileSync("/sys/devices/system/cpu/possible", "utf8"),
): number {
  return text
    .trim()
    .split(",")
    .map((range) => range.split("-").map(Number) as [number, number?])
    .reduce((total, [first, last = first]) => total + last - first + 1, 0);
}
