// The connections of one worker, as far as others may end or list them: policy changes, draining and
// the admin port. Owns no socket; each connection says how it is torn down.

import type { ConnectionSubject } from "@ambit/common/policy/match.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { Workload, WorkloadUid } from "../state/workload.ts";
import type { Direction, PathKind } from "../telemetry/connection-telemetry.ts";
import type { ProxyError } from "./proxy-error.ts";

/** What the admin port shows of a connection (ztunnel §7.3 workloadState). */
export interface ConnectionSummary {
  readonly id: string;
  readonly direction: Direction;
  readonly workload: WorkloadUid;
  readonly src: string;
  readonly originalDst: string;
  readonly actualDst: string;
  readonly protocol: "HBONE" | "TCP" | "LOCAL";
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

/** One live connection. `abort` may come at any moment; the first reason wins. */
export class Connection {
  readonly id: string;
  readonly #teardowns = new Set<() => void>();
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
    if (this.#error === undefined) this.#teardowns.add(teardown);
    else teardown();
  }

  abort(error: ProxyError): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    for (const teardown of this.#teardowns) teardown();
    this.#teardowns.clear();
  }
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
}

export class ConnectionTable {
  readonly #tracked = new Set<TrackedConnection>();
  readonly #prefix: string;
  #next = 0;

  /** `prefix` keeps the ids of several workers apart. */
  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** A connection with an id that appears in its access line, its metrics' exemplar and explain. */
  create(): Connection {
    this.#next++;
    return new Connection(`${this.#prefix}-${this.#next.toString(36)}`);
  }

  /** Tracks until the returned function is called. */
  track(tracked: TrackedConnection): () => void {
    this.#tracked.add(tracked);
    return () => this.#tracked.delete(tracked);
  }

  get size(): number {
    return this.#tracked.size;
  }

  [Symbol.iterator](): IterableIterator<TrackedConnection> {
    return this.#tracked.values();
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

const PROTOCOL_OF_PATH = { hbone: "HBONE", tcp: "TCP", local: "LOCAL" } as const;
