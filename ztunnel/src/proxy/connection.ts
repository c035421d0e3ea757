// The connections of one worker, as far as others may end or list them: policy changes, draining and
// the admin port. Owns no socket; each connection says how it is torn down.

import { ChurnSet, type Membership } from "@ambit/common/collections/churn-set.ts";
import type { ConnectionSubject } from "@ambit/common/policy/match.ts";
import type { Policy } from "@ambit/common/policy/policy.ts";
import type { Drain } from "@ambit/common/process/drain.ts";
import type { SpiffeId } from "@ambit/common/tls/identity.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { Workload, WorkloadUid } from "../state/workload.ts";
import type { Direction, PathKind } from "../telemetry/connection-telemetry.ts";
import { drainError, type ProxyError } from "./proxy-error.ts";

/** What the admin port shows of a connection (ztunnel §7.3 workloadState). */
export interface ConnectionSummary {
  readonly id: string;
  readonly direction: Direction;
  readonly workload: WorkloadUid;
  readonly src: string;
  readonly originalDst: string;
  readonly actualDst: string;
  readonly protocol: "HBONE" | "TCP" | "LOCAL" | "DIRECT";
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

/** One live connection. `abort` may come at any moment; the first reason wins. */
export class Connection {
  /** The trace id: the same in the access line, the metric's exemplar and explain, at both ends. */
  readonly id: string;
  /** What carries it, once known: when that is not to be trusted any more, neither is this. */
  tunnel: object | undefined;
  readonly #teardowns: (() => void)[] = [];
  /** Fails the step that is being waited for. */
  #failStep: (() => void) | undefined;
  #error: ProxyError | undefined;

  constructor(id: string) {
    this.id = id;
  }

  /** Why it was aborted. */
  get error(): ProxyError | undefined {
    return this.#error;
  }

  /** Registers what must be cut on abort; runs at once when that has happened already. */
  onAbort(teardown: () => void): void {
    if (this.#error === undefined) this.#teardowns.push(teardown);
    else teardown();
  }

  abort(error: ProxyError): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#failStep?.();
    for (const teardown of this.#teardowns.splice(0)) teardown();
  }

  /**
   * The result of `work`; rejects as soon as the connection is aborted. What `work` still brings then
   * is given to `discard`. One step at a time.
   */
  unlessAborted<T>(work: Promise<T>, discard: (late: T) => void): Promise<T> {
    return new Promise((resolve, reject) => {
      // Named first: V8 puts function literals that are assigned to a property into the old generation.
      const failStep = () => reject(this.#error!);
      this.#failStep = failStep;
      if (this.#error !== undefined) failStep();
      work.then((result) => {
        this.#failStep = undefined;
        if (this.#error === undefined) resolve(result);
        else discard(result);
      }, reject);
    });
  }

  /** Ends with its pod, until it leaves. */
  endWith(drain: Drain): Membership {
    return drain.whenForced(() => this.abort(drainError(drain.mode)));
  }
}

/** The workload that a tunnel ends at, as it was when the tunnel was opened. */
export interface Hop {
  readonly workload: Workload;
  readonly ip: Ip;
  readonly allowedIdentities: readonly SpiffeId[];
}

/** What is known of a connection once it is under way. */
export interface TrackedConnection {
  readonly connection: Connection;
  readonly direction: Direction;
  readonly path: PathKind;
  /** The local workload it belongs to. */
  readonly workload: Workload;
  readonly source: SocketAddress;
  readonly originalDestination: SocketAddress;
  readonly actualDestination: SocketAddress;
  readonly counters: { readonly sent: number; readonly received: number };
  /** Inbound only: what policies are asked about, again whenever they change. */
  readonly subject?: ConnectionSubject;
  /** The policies that were asked last. */
  reviewed?: readonly Policy[];
  /** Outbound only: where its tunnel ends. */
  readonly hop?: Hop;
}

export class ConnectionTable {
  readonly #tracked = new ChurnSet<TrackedConnection>();

  /** Tracks until it leaves. */
  track(tracked: TrackedConnection): Membership {
    return this.#tracked.add(tracked);
  }

  get size(): number {
    return this.#tracked.size;
  }

  [Symbol.iterator](): IterableIterator<TrackedConnection> {
    return this.#tracked[Symbol.iterator]();
  }

  summaries(): ConnectionSummary[] {
    return [...this.#tracked].map((tracked) => ({
      id: tracked.connection.id,
      direction: tracked.direction,
      workload: tracked.workload.uid,
      src: formatSocketAddress(tracked.source),
      originalDst: formatSocketAddress(tracked.originalDestination),
      actualDst: formatSocketAddress(tracked.actualDestination),
      protocol: PROTOCOL_OF_PATH[tracked.path],
      bytesSent: tracked.counters.sent,
      bytesReceived: tracked.counters.received,
    }));
  }
}

const PROTOCOL_OF_PATH = { hbone: "HBONE", tcp: "TCP", local: "LOCAL", direct: "DIRECT" } as const;
