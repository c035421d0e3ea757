// Giving memory back after a burst of allocation, such as a control plane's first push. V8 collects when
// it allocates: a thread that has become idle keeps its garbage for good.

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { trimHeap } from "../sys/libc.ts";

type Collect = (how: { type: "major"; flavor: "last-resort" }) => void;

/** Collects this thread's heap; V8 has it only behind a flag, and for contexts made after that. */
let collect: Collect | undefined;

/**
 * Stops this thread for two whole collections, some 30 ms for every 10 MiB of its heap. "Last resort" also
 * gives back the pages it emptied. It would forget all compiled code, also what traffic has made fast,
 * unless that is to be `kept`.
 */
export function tidyMemory(code: "kept" | "flushed"): void {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as Collect;
  }
  if (code === "kept") setFlagsFromString("--no-flush-bytecode");
  collect({ type: "major", flavor: "last-resort" });
  if (code === "kept") setFlagsFromString("--flush-bytecode");
  trimHeap();
}
