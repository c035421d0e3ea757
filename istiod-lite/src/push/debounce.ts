// Waits until changes pause, but not for ever: what comes in bursts is pushed once.

import type { Clock, Timer } from "@ambit/common/process/clock.ts";

export interface DebounceOptions {
  readonly clock: Clock;
  /** Fires after this much quiet. */
  readonly afterMs: number;
  /** Fires at the latest this long after the first change. */
  readonly maxMs: number;
  /** `waitedMs` is since the first change. */
  readonly fire: (waitedMs: number) => void;
}

export class Debounce {
  readonly #options: DebounceOptions;
  #firstMs: number | undefined;
  #timer: Timer | undefined;

  constructor(options: DebounceOptions) {
    this.#options = options;
  }

  /** Something changed. */
  touch(): void {
    const { clock, afterMs, maxMs } = this.#options;
    const nowMs = clock.monotonicMs();
    this.#firstMs ??= nowMs;
    this.#timer?.cancel();
    const leftMs = this.#firstMs + maxMs - nowMs;
    this.#timer = clock.after(Math.max(0, Math.min(afterMs, leftMs)), () => this.#fire());
  }

  cancel(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#firstMs = undefined;
  }

  #fire(): void {
    const waitedMs = this.#options.clock.monotonicMs() - (this.#firstMs ?? 0);
    this.cancel();
    this.#options.fire(waitedMs);
  }
}
