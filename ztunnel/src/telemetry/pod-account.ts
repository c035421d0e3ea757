// What one pod costs the ztunnel it shares with others: connections, bytes, and processor time as far as
// it can be told; and the bound on its connections, so that one busy pod is held and its neighbours are
// not. One account per pod and worker, with the worker's share of the bound.
// Connections that go past ztunnel are counted too; they take nobody's place, and are no work of ours.

import { ChurnSet, type Membership } from "@ambit/common/collections/churn-set.ts";
import type { ByteCounters } from "@ambit/common/hbone/stream.ts";
import type { PodUsage } from "@ambit/common/telemetry/pod-usage.ts";
import type { Direction } from "./connection-telemetry.ts";

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
  /** Connections from application to application. */
  readonly past = new Tally();
  readonly #relayed = new Tally();
  #refused = 0;
  #cpuSeconds = 0;
  /** The work that processor time has been charged for. */
  #charged = 0;

  constructor(bounds: ConnectionBounds) {
    this.bounds = bounds;
  }

  /** A connection begins; undefined when the pod has as many as it may. */
  open(direction: Direction, counters: ByteCounters): Seat | undefined {
    if (this.#relayed[direction] >= this.bounds[direction]) {
      this.#refused++;
      return undefined;
    }
    return this.#relayed.open(direction, counters);
  }

  usage(): PodUsage {
    const [relayed, past] = [this.#relayed, this.past];
    const [ours, theirs] = [relayed.bytes(), past.bytes()];
    return {
      inbound: relayed.inbound + past.inbound,
      outbound: relayed.outbound + past.outbound,
      opened: relayed.opened + past.opened,
      refused: this.#refused,
      sentBytes: ours.sent + theirs.sent,
      receivedBytes: ours.received + theirs.received,
      cpuSeconds: this.#cpuSeconds,
    };
  }

  /** What was done for the pod since the last call, in bytes relayed. */
  takeWork(): number {
    const { sent, received } = this.#relayed.bytes();
    const work = sent + received + (this.#relayed.opened + this.#refused) * CONNECTION_COST_BYTES;
    const fresh = work - this.#charged;
    this.#charged = work;
    return fresh;
  }

  charge(cpuSeconds: number): void {
    this.#cpuSeconds += cpuSeconds;
  }
}

/** Connections that live, and how many there were. */
export class Tally {
  readonly #live = new ChurnSet<Seat>();
  #inbound = 0;
  #opened = 0;
  /** Of those that are over. */
  #sentBytes = 0;
  #receivedBytes = 0;

  open(direction: Direction, counters: ByteCounters): Seat {
    this.#opened++;
    if (direction === "inbound") this.#inbound++;
    const seat = new Seat(this, direction, counters);
    seat.membership = this.#live.add(seat);
    return seat;
  }

  /** A connection that is heard of when it is over. */
  add(sentBytes: number, receivedBytes: number): void {
    this.#opened++;
    this.#sentBytes += sentBytes;
    this.#receivedBytes += receivedBytes;
  }

  /** Only for Seat. */
  leave({ direction, counters }: Seat): void {
    if (direction === "inbound") this.#inbound--;
    this.#sentBytes += counters.sent;
    this.#receivedBytes += counters.received;
  }

  get inbound(): number {
    return this.#inbound;
  }

  get outbound(): number {
    return this.#live.size - this.#inbound;
  }

  get opened(): number {
    return this.#opened;
  }

  /** Of all connections, up to now. */
  bytes(): ByteCounters {
    let sent = this.#sentBytes;
    let received = this.#receivedBytes;
    for (const { counters } of this.#live) {
      sent += counters.sent;
      received += counters.received;
    }
    return { sent, received };
  }
}

/** A connection's place among its pod's. */
export class Seat implements Disposable {
  readonly direction: Direction;
  readonly counters: ByteCounters;
  /** Set by the tally. */
  membership: Membership | undefined;
  readonly #tally: Tally;

  constructor(tally: Tally, direction: Direction, counters: ByteCounters) {
    this.#tally = tally;
    this.direction = direction;
    this.counters = counters;
  }

  /** The connection is over. Idempotent. */
  [Symbol.dispose](): void {
    if (this.membership === undefined) return;
    this.membership.leave();
    this.membership = undefined;
    this.#tally.leave(this);
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
