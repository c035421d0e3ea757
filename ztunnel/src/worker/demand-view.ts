// The worker's view of on-demand xDS: what the mesh state lacks is asked of the main thread, which
// subscribes to it; once the control plane has answered, the state has it or it does not exist.

import type { Clock } from "@ambit/common/process/clock.ts";
import type { DemandResult } from "@ambit/common/xds/delta-types.ts";
import { ProxyError } from "../proxy/proxy-error.ts";

/** How long a connection waits for an answer: as long as for its own workload. */
export const DEMAND_WAIT_MS = 5_000;

/** Connections that wait at once; one more is refused. */
export const DEMAND_WAITERS_MAX = 10_000;

interface Waiter {
  resolve(): void;
  reject(error: ProxyError): void;
}

export class DemandView {
  readonly #clock: Clock;
  readonly #ask: (key: string) => void;
  readonly #waiters = new Map<string, Set<Waiter>>();
  #count = 0;

  /** `ask` tells the main thread what is wanted. */
  constructor(clock: Clock, ask: (key: string) => void) {
    this.#clock = clock;
    this.#ask = ask;
  }

  /**
   * Resolves once the control plane has sent the resource, or said that there is none. Rejects with
   * XDS_UNANSWERED otherwise: what is unknown must not pass for what does not exist.
   */
  wait(key: string): Promise<void> {
    if (this.#count >= DEMAND_WAITERS_MAX) return Promise.reject(unanswered(key, TOO_MANY));
    return new Promise((resolve, reject) => {
      const done = () => {
        timer.cancel();
        this.#count--;
        this.#leave(key, waiter);
      };
      const waiter: Waiter = {
        resolve: () => (done(), resolve()),
        reject: (error) => (done(), reject(error)),
      };
      const timer = this.#clock.after(DEMAND_WAIT_MS, () =>
        waiter.reject(unanswered(key, `waited ${DEMAND_WAIT_MS / 1000} s`)),
      );
      this.#count++;
      this.#join(key, waiter);
    });
  }

  /** The main thread's answer. */
  update(key: string, result: DemandResult): void {
    for (const waiter of this.#waiters.get(key) ?? []) {
      if (result === "present" || result === "absent") waiter.resolve();
      else waiter.reject(unanswered(key, result === "refused" ? TOO_MANY : "we are stopping"));
    }
  }

  #join(key: string, waiter: Waiter): void {
    const others = this.#waiters.get(key);
    if (others !== undefined) {
      others.add(waiter);
      return;
    }
    this.#waiters.set(key, new Set([waiter]));
    this.#ask(key);
  }

  #leave(key: string, waiter: Waiter): void {
    const others = this.#waiters.get(key);
    others?.delete(waiter);
    if (others?.size === 0) this.#waiters.delete(key);
  }
}

const TOO_MANY = "too many others wait";

function unanswered(key: string, why: string): ProxyError {
  return new ProxyError("XDS_UNANSWERED", `the control plane did not tell us of ${key}: ${why}`);
}
