// Kernel settings of a network namespace. Best effort by design: containers often see /proc/sys
// read-only, and older kernels lack some; callers ask only for what makes things better.

import { writeFileSync } from "node:fs";
import { inNetns } from "./netns.ts";

/** Writes /proc/sys/net/`name` in the namespace. False when the kernel or the mount does not allow it. */
export function setNetSysctl(netnsFd: number | undefined, name: string, value: string): boolean {
  try {
    // /proc/sys/net shows the namespace of the thread that opens it.
    inNetns(netnsFd, () => writeFileSync(`/proc/sys/net/${name}`, value));
    return true;
  } catch {
    return false;
  }
}
