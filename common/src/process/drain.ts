// Draining: one trigger, many watchers. Each watcher holds the drain open until it is released,
// so "drained" means that nothing is in flight any more, or that the deadline has passed.

import { ChurnSet, type Membership } from "../collections/churn-set.ts";
import type { Clock } from "./clock.ts";

export type DrainMode = "graceful" | "immediate";

/** Held by something in flight. Release is idempotent and happens at scope end with `using`. */
export interface DrainHold extends Disposable {
  release(): void;
}

export class Drain {
  readonly #clock: Clock;
  readonly #started = new AbortController();
  readonly #forced = new AbortController();
  readonly #cuts = new ChurnSet<() => void>();
  #holds = 0;
  #mode: DrainMode | undefined;
  #onIdle: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Aborts when draining starts: stop accepting. */
  get started(): AbortSignal {
    return this.#started.signal;
  }

  /** Aborts when the deadline passed, or at once in immediate mode: cut what is left. */
  get forced(): AbortSignal {
    return this.#forced.signal;
  }

  /**
   * Calls `cut` when `forced` aborts, at once when it has already, unless the membership was left
   * before. For what there are thousands of a second: like a Map's tables (churn-set.ts), the listeners
   * of a signal keep those alive that came after them.
   */
  whenForced(cut: () => void): Membership {
    if (this.forced.aborted) cut();
    return this.#cuts.add(cut);
  }

  get mode(): DrainMode | undefined {
    return this.#mode;
  }

  hold(): DrainHold {
    this.#holds++;
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      if (--this.#holds === 0) this.#onIdle?.();
    };
    return { release, [Symbol.dispose]: release };
  }

  /** Starts draining; resolves when every hold is released. After `deadlineMs` the rest is forced. */
  async drain(mode: DrainMode, deadlineMs: number): Promise<void> {
    this.#mode ??= mode;
    const idle = new Promise<void>((resolve) => {
      const before = this.#onIdle;
      const onIdle = () => (before?.(), resolve());
      this.#onIdle = onIdle;
    });
    this.#started.abort();
    if (this.#holds === 0) return;
    const timer = this.#clock.after(mode === "immediate" ? 0 : deadlineMs, () => this.#force());
    await idle;
    timer.cancel();
  }

  #force(): void {
    this.#forced.abort();
    for (const cut of this.#cuts) cut();
  }
}
