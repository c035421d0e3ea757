// What a burst leaves behind, such as the control plane's first push or a thousand connections, is given
// back once the thread has little to do: V8 collects when it allocates, so a thread that has become idle
// would keep its garbage, its grown nursery and the emptied pages for good.

import { getHeapStatistics } from "node:v8";
import type { Clock } from "@ambit/common/process/clock.ts";
import { waitedMs } from "@ambit/common/sys/fd-loop.ts";
import { tidyMemory } from "@ambit/common/process/tidy-memory.ts";

export const CHECK_INTERVAL_MS = 2_000;
/**
 * Busy for less than this share of an interval, some five connections a second: next to nobody is there
 * to meet the pause, which with ten thousand workloads is 0.1 s, and more on a busy machine.
 */
export const QUIET_SHARE = 0.005;
/**
 * So long at a time, once it has started: who comes back after a few seconds would meet a heap that has to
 * grow again, which costs a tenth of the connections in the first second.
 */
export const QUIET_MS = 12_000;
/** What is worth that pause. */
export const GROWN_BYTES = 4 << 20;
/** Bursts may come again and again. */
export const TIDY_INTERVAL_MS = 10_000;

/** The thread that is looked after. */
export interface Thread {
  /** Of the time since the last call. */
  busyShare(): number;
  /** What its heap takes of the process's memory. */
  heapBytes(): number;
  tidy(code: "kept" | "flushed"): void;
}

/** Looks after this thread from now on, as long as it runs. */
export function tidyWhenIdle(clock: Clock, thread = thisThread()): void {
  /** Its heap when it was last tidy; 0: not yet. */
  let tidyBytes = 0;
  let tidiedMs = -Infinity;
  let busyMs = -Infinity;
  const check = () => {
    clock.after(CHECK_INTERVAL_MS, check);
    const nowMs = clock.monotonicMs();
    const quiet = thread.busyShare() < QUIET_SHARE;
    if (!quiet) busyMs = nowMs;
    const bytes = thread.heapBytes();
    tidyBytes = Math.min(tidyBytes, bytes);
    if (!quiet || bytes < tidyBytes + GROWN_BYTES) return;
    if (tidyBytes > 0 && nowMs - busyMs < QUIET_MS) return;
    if (nowMs - tidiedMs < TIDY_INTERVAL_MS) return;
    // At first most code is what was needed to start; later it is what the next burst needs, too.
    thread.tidy(tidyBytes === 0 ? "flushed" : "kept");
    tidyBytes = thread.heapBytes();
    tidiedMs = clock.monotonicMs();
  };
  clock.after(CHECK_INTERVAL_MS, check);
}

function thisThread(): Thread {
  let last = { ...performance.eventLoopUtilization(), waitedMs: waitedMs() };
  return {
    busyShare: () => {
      const now = { ...performance.eventLoopUtilization(), waitedMs: waitedMs() };
      const { idle, active } = performance.eventLoopUtilization(now, last);
      const busyMs = active - (now.waitedMs - last.waitedMs);
      last = now;
      return busyMs / (idle + active);
    },
    heapBytes: () => {
      const { total_heap_size: heap, external_memory: external } = getHeapStatistics();
      return heap + external;
    },
    tidy: tidyMemory,
  };
}
