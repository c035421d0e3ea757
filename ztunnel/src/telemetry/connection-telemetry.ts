// The telemetry of one connection from open to close: its metric series and its one access line,
// with Istio's field names in Istio's order, followed by ours (path, reason, id).

import type { ByteCounters } from "@ambit/common/hbone/stream.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { Clock } from "@ambit/common/process/clock.ts";
import { type LogFields, type Logger, raw } from "@ambit/common/telemetry/log.ts";
import type { SpiffeId } from "@ambit/common/tls/identity.ts";
import type { ProxyError } from "../proxy/proxy-error.ts";
import type { Failure, FailureLog } from "./failure-log.ts";
import type { Party } from "./party.ts";
import { REPORTER } from "./traffic-labels.ts";
import type { TrafficConnection, TrafficMetrics } from "./traffic-metrics.ts";

export type Direction = "inbound" | "outbound";

/**
 * How the bytes travel: through a tunnel, in the clear, or on one node: within this process, or from
 * application to application.
 */
export type PathKind = "hbone" | "tcp" | "local" | "direct";

/** All that telemetry says of a connection. */
export interface ConnectionFacts {
  readonly id: string;
  readonly direction: Direction;
  readonly path: PathKind;
  readonly sourceAddress: SocketAddress;
  readonly destinationAddress: SocketAddress;
  /** The CONNECT authority, when the connection runs in a tunnel. */
  readonly hboneTarget?: string;
  readonly source: Party;
  readonly destination: Party;
  readonly service?: {
    readonly hostname: string;
    readonly namespace: string;
    readonly name: string;
  };
  /** Identities proven by certificates; absent on plaintext. */
  readonly sourceIdentity?: SpiffeId;
  readonly destinationIdentity?: SpiffeId;
  /** The identity xDS gives the destination, proven or not: what destination_principal shows. */
  readonly destinationPrincipal?: SpiffeId;
}

export interface TelemetrySinks {
  readonly metrics: TrafficMetrics;
  readonly failures: FailureLog;
  readonly access: Logger;
  readonly clock: Clock;
}

/** A connection that was opened: counted, and owing an access line. */
export class ConnectionTelemetry {
  readonly counters: ByteCounters;
  readonly #sinks: TelemetrySinks;
  readonly #facts: ConnectionFacts;
  readonly #startedMs: number;
  readonly #traffic: TrafficConnection;
  #closed = false;

  /** `counters` are given where two reporters share one relay, `startedMs` when it was before now. */
  constructor(
    sinks: TelemetrySinks,
    facts: ConnectionFacts,
    counters: ByteCounters = { sent: 0, received: 0 },
    startedMs = sinks.clock.monotonicMs(),
  ) {
    this.#sinks = sinks;
    this.counters = counters;
    this.#facts = facts;
    this.#startedMs = startedMs;
    this.#traffic = sinks.metrics.openFor(facts, this.counters);
    if (sinks.access.enabled("debug")) sinks.access.debug("connection opened", accessFields(facts));
  }

  /** Writes the access line and closes the metric. Only the first call counts. */
  close(error?: ProxyError): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#traffic.close(error?.flag ?? "-");
    if (error !== undefined)
      this.#sinks.failures.record(failureOf(this.#sinks, this.#facts, error));
    const level = error === undefined ? "info" : "error";
    if (!this.#sinks.access.enabled(level)) return;
    const durationMs = Math.round(this.#sinks.clock.monotonicMs() - this.#startedMs);
    const fields = accessFields(this.#facts, {
      bytes_sent: this.counters.sent,
      bytes_recv: this.counters.received,
      duration: `${durationMs}ms`,
      error: error?.message,
      reason: raw(error?.code),
    });
    this.#sinks.access[level]("connection complete", fields);
  }
}

/** A connection that failed before its parties were known. */
export interface EarlyFailure {
  readonly id: string;
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  readonly direction: Direction;
  readonly error: ProxyError;
}

/** The short line for it (ztunnel: "early deny"). */
export function logEarlyFailure(sinks: TelemetrySinks, failure: EarlyFailure): void {
  const { id, source, destination, direction, error } = failure;
  const [src, dst] = [formatSocketAddress(source), formatSocketAddress(destination)];
  sinks.failures.record({ ...describeFailure(sinks, direction, error), id, src, dst });
  sinks.access.warn("connection failed", {
    "src.addr": raw(src),
    "dst.addr": raw(dst),
    direction,
    error: error.message,
    reason: raw(error.code),
    id: raw(id),
  });
}

function describeFailure(
  { clock }: TelemetrySinks,
  direction: Direction,
  error: ProxyError,
): Omit<Failure, "id" | "src"> {
  return {
    reason: error.code,
    flag: error.flag,
    error: error.message,
    reporter: REPORTER[direction],
    atMs: clock.nowMs(),
  };
}

function failureOf(sinks: TelemetrySinks, facts: ConnectionFacts, error: ProxyError): Failure {
  const { id, direction, source, destination, service, sourceIdentity } = facts;
  return {
    ...describeFailure(sinks, direction, error),
    id,
    src: formatSocketAddress(facts.sourceAddress),
    dst: facts.hboneTarget ?? formatSocketAddress(facts.destinationAddress),
    ...(source.name !== undefined && { srcWorkload: `${source.namespace}/${source.name}` }),
    ...(destination.name !== undefined && {
      dstWorkload: `${destination.namespace}/${destination.name}`,
    }),
    ...(sourceIdentity && { srcIdentity: sourceIdentity }),
    ...(service && { dstService: service.hostname }),
  };
}

interface CloseFields {
  readonly bytes_sent: number;
  readonly bytes_recv: number;
  readonly duration: string;
  readonly error: string | undefined;
  readonly reason: ReturnType<typeof raw>;
}

function accessFields(facts: ConnectionFacts, close?: CloseFields): LogFields {
  const { source, destination } = facts;
  return {
    "src.addr": raw(formatSocketAddress(facts.sourceAddress)),
    "src.workload": source.name,
    "src.namespace": source.namespace,
    "src.identity": facts.sourceIdentity,
    "src.cluster": source.cluster,
    "dst.addr": raw(formatSocketAddress(facts.destinationAddress)),
    "dst.hbone_addr": raw(facts.hboneTarget),
    "dst.service": facts.service?.hostname,
    "dst.workload": destination.name,
    "dst.namespace": destination.namespace,
    "dst.identity": facts.destinationIdentity,
    "dst.cluster": destination.cluster,
    direction: facts.direction,
    ...(close && {
      bytes_sent: close.bytes_sent,
      bytes_recv: close.bytes_recv,
      duration: close.duration,
      error: close.error,
      reason: close.reason,
    }),
    path: raw(facts.path),
    id: raw(facts.id),
  };
}
