// After a large update of the mesh, such as the control plane's first push, each thread gives back what it
// needed for it and not for its result: several times as much.

import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { tidyMemory } from "@ambit/common/process/tidy-memory.ts";

/** Resources; below it V8's own pace of collection will do. */
export const LARGE_UPDATE = 1_000;
/** Updates that follow one another are tidied up after together. */
export const TIDY_DELAY_MS = 1_000;

export class LargeUpdates {
  readonly #clock: Clock;
  readonly #tidy: () => void;
  #timer: Timer | undefined;

  constructor(clock: Clock, tidy = tidyMemory) {
    this.#clock = clock;
    this.#tidy = tidy;
  }

  /** An update of so many resources was applied on this thread. */
  applied(resources: number): void {
    if (resources < LARGE_UPDATE) return;
    this.#timer?.cancel();
    this.#timer = this.#clock.after(TIDY_DELAY_MS, this.#tidy);
  }
}
