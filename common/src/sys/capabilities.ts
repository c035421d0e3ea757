// Which Linux capabilities this process has, asked before the first system call that needs them, so
// that a missing one is one clear sentence and not an EPERM from the middle of something.

import { readFileSync } from "node:fs";
import { UserError } from "../process/errors.ts";

/** Bit numbers in linux/capability.h. */
const BITS = {
  CAP_DAC_OVERRIDE: 1n,
  CAP_NET_ADMIN: 12n,
  CAP_NET_RAW: 13n,
  CAP_SYS_PTRACE: 19n,
  CAP_SYS_ADMIN: 21n,
} as const;

export type Capability = keyof typeof BITS;

/** Those of `wanted` that are not in effect. `status` is the text of /proc/self/status. */
export function missingCapabilities(
  wanted: readonly Capability[],
  status = readFileSync("/proc/self/status", "utf8"),
): Capability[] {
  const [, hex = "0"] = /^CapEff:\s*([0-9a-f]+)$/m.exec(status) ?? [];
  const effective = BigInt(`0x${hex}`);
  return wanted.filter((name) => ((effective >> BITS[name]) & 1n) === 0n);
}

/** Throws a UserError that names what `program` lacks and how to give it. */
export function requireCapabilities(program: string, wanted: readonly Capability[]): void {
  const missing = missingCapabilities(wanted);
  if (missing.length === 0) return;
  throw new UserError(
    `${program} lacks ${missing.join(", ")}: run it as root, or add them to its securityContext`,
  );
}
