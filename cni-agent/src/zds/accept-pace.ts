// Slows down whoever connects in a circle: so many connections a second are let in at once, the next
// ones wait their turn, and a crowd is turned away. Owns the descriptors that wait.

import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";

/** As Istio's agent: a node has one ztunnel, two while it is replaced. */
export const ACCEPTS_PER_SECOND = 5;

/** Each is an open descriptor; a ztunnel that is turned away tries again by itself. */
export const WAITING_MAX = 8;

const SECOND_MS = 1_000;

export class AcceptPace {
  readonly #clock: Clock;
  readonly #admit: (fd: number) => void;
  /** When the last ones were let in, oldest first. */
  readonly #admittedMs: number[] = [];
  readonly #waiting: number[] = [];
  #timer: Timer | undefined;

  constructor(clock: Clock, admit: (fd: number) => void) {
    this.#clock = clock;
    this.#admit = admit;
  }

  /** Takes over a connected descriptor. False when it was turned away. */
  offer(fd: number): boolean {
    if (this.#waiting.length >= WAITING_MAX) {
      closeFd(fd);
      return false;
    }
    this.#waiting.push(fd);
    this.#pump();
    return true;
  }

  close(): void {
    this.#timer?.cancel();
    for (const fd of this.#waiting.splice(0)) closeFd(fd);
  }

  #pump(): void {
    while (this.#waiting.length > 0) {
      const nowMs = this.#clock.monotonicMs();
      const waitMs = this.#waitMs(nowMs);
      if (waitMs > 0) {
        this.#timer ??= this.#clock.after(waitMs, () => {
          this.#timer = undefined;
          this.#pump();
        });
        return;
      }
      this.#admittedMs.push(nowMs);
      this.#admit(this.#waiting.shift()!);
    }
  }

  #waitMs(nowMs: number): number {
    while (this.#admittedMs.length > 0 && nowMs - this.#admittedMs[0]! >= SECOND_MS) {
      this.#admittedMs.shift();
    }
    if (this.#admittedMs.length < ACCEPTS_PER_SECOND) return 0;
    return SECOND_MS - (nowMs - this.#admittedMs[0]!);
  }
}
