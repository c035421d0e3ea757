// Draining: one trigger, many watchers. Each watcher holds the drain open until it is released,
// so "drained" means that nothing is in flight any more, or that what is did not end when it was cut.

import { ChurnSet, type Membership } from "../collections/churn-set.ts";
import type { Clock } from "./clock.ts";

export type DrainMode = "graceful" | "immediate";

/** What was cut lets go within milliseconds; who waits for the drain has a deadline of its own. */
export const CUT_GRACE_MS = 1_000;

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
  /** The same by what they are. */
  readonly #held = new Map<string, number>();
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

  /** `what` names its kind, of which there are few. */
  hold(what: string): DrainHold {
    this.#count(what, 1);
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      this.#count(what, -1);
      if (this.#holds === 0) this.#onIdle?.();
    };
    return { release, [Symbol.dispose]: release };
  }

  /**
   * Starts draining; resolves when every hold is released. After `deadlineMs`, in immediate mode at once,
   * the rest is forced; what has not let go CUT_GRACE_MS later is not waited for. Returns that, for people:
   * "" when there is nothing.
   */
  async drain(mode: DrainMode, deadlineMs: number): Promise<string> {
    this.#mode ??= mode;
    const idle = new Promise<void>((resolve) => {
      const before = this.#onIdle;
      const onIdle = () => (before?.(), resolve());
      this.#onIdle = onIdle;
    });
    this.#started.abort();
    if (this.#holds === 0) return "";
    const { promise: late, resolve: giveUp } = Promise.withResolvers<void>();
    let timer = this.#clock.after(mode === "immediate" ? 0 : deadlineMs, () => {
      this.#force();
      timer = this.#clock.after(CUT_GRACE_MS, giveUp);
    });
    await Promise.race([idle, late]);
    timer.cancel();
    return this.#describeHeld();
  }

  #count(what: string, change: 1 | -1): void {
    this.#holds += change;
    this.#held.set(what, (this.#held.get(what) ?? 0) + change);
  }

  #describeHeld(): string {
    const held = [...this.#held].filter(([, count]) => count > 0);
    return held.map(([what, count]) => `${what}: ${count}`).join(", ");
  }

  #force(): void {
    this.#forced.abort();
    for (const cut of this.#cuts) cut();
  }
}
