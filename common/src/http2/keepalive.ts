// PING keepalive: one ping an interval after the last answer, and a verdict when none comes.

import type { Clock, Timer } from "../process/clock.ts";

export interface KeepaliveOptions {
  readonly clock: Clock;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  sendPing(): void;
  onDead(): void;
}

export class Keepalive {
  readonly #options: KeepaliveOptions;
  #timer: Timer | undefined;
  #pending = false;

  constructor(options: KeepaliveOptions) {
    this.#options = options;
    this.#schedule();
  }

  onPong(): void {
    if (!this.#pending) return;
    this.#pending = false;
    this.#schedule();
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #schedule(): void {
    this.#timer?.cancel();
    this.#timer = this.#options.clock.after(this.#options.intervalMs, () => {
      this.#pending = true;
      this.#options.sendPing();
      this.#timer = this.#options.clock.after(this.#options.timeoutMs, () =>
        this.#options.onDead(),
      );
    });
  }
}
