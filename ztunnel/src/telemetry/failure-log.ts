// The connections that ended other than well: counted by reason, the latest kept with their details, so
// that an id from an access line or a metric's exemplar can be explained. Owns both.

import type { ProxyErrorCode, ResponseFlag } from "../proxy/proxy-error.ts";
import type { MetricFamily } from "./traffic-metrics.ts";

/** Details kept per worker: enough for what an operator just saw, about 100 KiB. */
export const FAILURES_KEPT = 256;

export interface Failure {
  readonly id: string;
  readonly reason: ProxyErrorCode;
  readonly flag: ResponseFlag;
  /** The access line's `error`. */
  readonly error: string;
  readonly reporter: "source" | "destination";
  readonly atMs: number;
  readonly src: string;
  readonly dst?: string;
  readonly srcIdentity?: string;
  readonly srcWorkload?: string;
  readonly dstWorkload?: string;
  readonly dstService?: string;
}

interface Count {
  readonly reporter: Failure["reporter"];
  readonly reason: ProxyErrorCode;
  value: number;
  /** The latest. */
  id: string;
}

export class FailureLog {
  /** In order of time: the first is the oldest. */
  readonly #latest: Failure[] = [];
  /** Bounded by the closed set of reasons. */
  readonly #counts = new Map<string, Count>();

  record(failure: Failure): void {
    const { reporter, reason, id } = failure;
    this.#latest.push(failure);
    if (this.#latest.length > FAILURES_KEPT) this.#latest.shift();
    const key = `${reporter} ${reason}`;
    const count = this.#counts.getOrInsertComputed(key, () => ({ reporter, reason, value: 0, id }));
    count.value++;
    count.id = id;
  }

  /** What is kept of a connection: both its sides when both are ours. */
  find(id: string): Failure[] {
    return this.#latest.filter((failure) => failure.id === id);
  }

  collect(): MetricFamily[] {
    if (this.#counts.size === 0) return [];
    return [
      {
        name: "ambit_connection_failures",
        help: "Connections that ended other than well, by reason (unstable)",
        type: "counter",
        aggregator: "sum",
        values: [...this.#counts.values()].map(({ reporter, reason, value, id }) => ({
          labels: { reporter, reason },
          value,
          exemplar: { id },
        })),
      },
    ];
  }
}
