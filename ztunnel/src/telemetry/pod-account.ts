// What one pod costs the ztunnel it shares with others: connections, bytes, and processor time as far as
// it can be told; and the bound on its connections, so that one busy pod is held and its neighbours are
// not. One account per pod and worker, with the worker's share of the bound.

import { ChurnSet, type Membership } from "@ambit/common/collections/churn-set.ts";
import type { ByteCounters } from "@ambit/common/hbone/stream.ts";
import type { Direction } from "./connection-telemetry.ts";

/** Of one pod since it is served. `sent` is what its application sent, `received` what it got. */
export interface PodUsage {
  readonly inbound: number;
  readonly outbound: number;
  readonly opened: number;
  /** Connections that were refused because the pod had as many as it may. */
  readonly refused: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
  readonly cpuSeconds: number;
}

export const NO_USAGE: PodUsage = {
  inbound: 0,
  outbound: 0,
  opened: 0,
  refused: 0,
  sentBytes: 0,
  receivedBytes: 0,
  cpuSeconds: 0,
};

/**
 * Making a connection takes about as long as relaying this many bytes: a quarter of a millisecond each,
 * measured with the benchmarks. It is what processor time is divided by.
 */
const CONNECTION_COST_BYTES = 256 * 1024;

/** How many connections a pod may have at a time, as client and as server. */
export type ConnectionBounds = Readonly<Record<Direction, number>>;

export class PodAccount {
  readonly bounds: ConnectionBounds;
  readonly #live = new ChurnSet<Seat>();
  #inbound = 0;
  #opened = 0;
  #refused = 0;
  #sentBytes = 0;
  #receivedBytes = 0;
  #cpuSeconds = 0;
  /** The work that processor time has been charged for. */
  #charged = 0;

  constructor(bounds: ConnectionBounds) {
    this.bounds = bounds;
  }

  /** A connection begins; undefined when the pod has as many as it may. */
  open(direction: Direction, counters: ByteCounters): Seat | undefined {
    const live = direction === "inbound" ? this.#inbound : this.#live.size - this.#inbound;
    if (live >= this.bounds[direction]) {
      this.#refused++;
      return undefined;
    }
    this.#opened++;
    if (direction === "inbound") this.#inbound++;
    const seat = new Seat(this, direction, counters);
    seat.membership = this.#live.add(seat);
    return seat;
  }

  /** Only for Seat. */
  leave({ direction, counters }: Seat): void {
    if (direction === "inbound") this.#inbound--;
    this.#sentBytes += counters.sent;
    this.#receivedBytes += counters.received;
  }

  usage(): PodUsage {
    let sentBytes = this.#sentBytes;
    let receivedBytes = this.#receivedBytes;
    for (const { counters } of this.#live) {
      sentBytes += counters.sent;
      receivedBytes += counters.received;
    }
    return {
      inbound: this.#inbound,
      outbound: this.#live.size - this.#inbound,
      opened: this.#opened,
      refused: this.#refused,
      sentBytes,
      receivedBytes,
      cpuSeconds: this.#cpuSeconds,
    };
  }

  /** What was done for the pod since the last call, in bytes relayed. */
  takeWork(): number {
    const { opened, refused, sentBytes, receivedBytes } = this.usage();
    const work = sentBytes + receivedBytes + (opened + refused) * CONNECTION_COST_BYTES;
    const fresh = work - this.#charged;
    this.#charged = work;
    return fresh;
  }

  charge(cpuSeconds: number): void {
    this.#cpuSeconds += cpuSeconds;
  }
}

/** A connection's place in its pod's account. */
export class Seat implements Disposable {
  readonly direction: Direction;
  readonly counters: ByteCounters;
  /** Set by the account. */
  membership: Membership | undefined;
  readonly #account: PodAccount;

  constructor(account: PodAccount, direction: Direction, counters: ByteCounters) {
    this.#account = account;
    this.direction = direction;
    this.counters = counters;
  }

  /** The connection is over. Idempotent. */
  [Symbol.dispose](): void {
    if (this.membership === undefined) return;
    this.membership.leave();
    this.membership = undefined;
    this.#account.leave(this);
  }
}

/** What each pod has cost all workers together. */
export function sumUsage(
  usages: readonly { readonly uid: string; readonly usage: PodUsage }[],
): Map<string, PodUsage> {
  const sums = new Map<string, PodUsage>();
  for (const { uid, usage } of usages) sums.set(uid, add(sums.get(uid) ?? NO_USAGE, usage));
  return sums;
}

function add(a: PodUsage, b: PodUsage): PodUsage {
  return {
    inbound: a.inbound + b.inbound,
    outbound: a.outbound + b.outbound,
    opened: a.opened + b.opened,
    refused: a.refused + b.refused,
    sentBytes: a.sentBytes + b.sentBytes,
    receivedBytes: a.receivedBytes + b.receivedBytes,
    cpuSeconds: a.cpuSeconds + b.cpuSeconds,
  };
}
