// A queue of keys to be reconciled: each key is worked on by one at a time, several keys at once, and
// a failed key comes back after a growing delay. Bounded by the number of keys. Knows nothing of pods.

import type { Clock, Timer } from "@ambit/common/process/clock.ts";

/** Istio's: from 5 ms doubling to 5 s. */
const RETRY_FIRST_MS = 5;
const RETRY_MAX_MS = 5_000;

/** Each step waits for child processes and for ztunnel; more would only make them slower. */
const CONCURRENCY_MAX = 4;

export interface QueueOptions {
  readonly clock: Clock;
  /** Rejects when the key must come back. */
  work(key: string): Promise<void>;
  onFailure(key: string, error: unknown, retryInMs: number): void;
}

interface Retry {
  readonly timer: Timer;
}

export class KeyedQueue {
  readonly #options: QueueOptions;
  /** In order of arrival. */
  readonly #waiting = new Set<string>();
  readonly #running = new Set<string>();
  readonly #retries = new Map<string, Retry>();
  readonly #failures = new Map<string, number>();
  readonly #idle: (() => void)[] = [];
  #closed = false;

  constructor(options: QueueOptions) {
    this.#options = options;
  }

  /** Works on the key soon; a key being worked on comes again afterwards. */
  add(key: string): void {
    if (this.#closed) return;
    this.#retries.get(key)?.timer.cancel();
    this.#retries.delete(key);
    this.#waiting.add(key);
    this.#pump();
  }

  /** Does not wait any longer with the keys that failed. */
  retryNow(): void {
    for (const key of this.#retries.keys()) this.add(key);
  }

  /** Resolves when nothing is waiting or running; failed keys may still be due later. */
  whenIdle(): Promise<void> {
    if (this.#waiting.size + this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Starts nothing new; resolves when what runs is done. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { timer } of this.#retries.values()) timer.cancel();
    this.#retries.clear();
    this.#waiting.clear();
    await this.whenIdle();
  }

  #pump(): void {
    for (const key of this.#waiting) {
      if (this.#running.size >= CONCURRENCY_MAX) return;
      if (this.#running.has(key)) continue;
      this.#waiting.delete(key);
      this.#running.add(key);
      void this.#run(key);
    }
  }

  async #run(key: string): Promise<void> {
    try {
      await this.#options.work(key);
      this.#failures.delete(key);
    } catch (error) {
      this.#retryLater(key, error);
    }
    this.#running.delete(key);
    this.#pump();
    if (this.#waiting.size + this.#running.size > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #retryLater(key: string, error: unknown): void {
    const failures = this.#failures.get(key) ?? 0;
    const delayMs = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** failures);
    this.#failures.set(key, failures + 1);
    this.#options.onFailure(key, error, delayMs);
    if (this.#closed || this.#waiting.has(key)) return;
    const timer = this.#options.clock.after(delayMs, () => this.add(key));
    this.#retries.set(key, { timer });
  }
}
