// The istio_tcp_* families. A connection finds its series once; bytes are read from its counters at
// scrape time, so nothing is counted per chunk. Owns the series and the list of live connections.

import { ChurnSet, type Membership } from "@ambit/common/collections/churn-set.ts";
import type { ByteCounters } from "@ambit/common/hbone/stream.ts";
import { Between } from "./between.ts";
import type { ConnectionFacts } from "./connection-telemetry.ts";
import { type TrafficLabels, trafficLabels } from "./traffic-labels.ts";
import type { ResponseFlag } from "../proxy/proxy-error.ts";

/** Past this many series new label sets fold into one series labelled unknown. */
export const SERIES_MAX = 50_000;

/** A family as prom-client's getMetricsAsJSON() shapes it. */
export interface MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly aggregator: "sum";
  readonly values: {
    labels: Record<string, string>;
    value: number;
    /** For histograms: _bucket, _sum, _count. */
    metricName?: string;
    /** Labels of one connection that the sample counted. */
    exemplar?: Record<string, string>;
  }[];
}

interface Series {
  readonly labels: TrafficLabels;
  opened: number;
  readonly closedByFlag: Map<ResponseFlag, number>;
  readonly failedByFlag: Map<ResponseFlag, number>;
  bytesReceived: number;
  bytesSent: number;
}

/** A connection being counted. `received` is client to server, whoever reports. */
export interface TrafficConnection {
  /** Ends the connection with its final flag. Idempotent. */
  close(flag: ResponseFlag): void;
}

/** Connections of one kind that are told of when they have ended. */
export interface TrafficAccount {
  /** One connection that ended well; `received` is client to server. */
  add(received: number, sent: number): void;
}

class Live implements TrafficConnection {
  readonly series: Series;
  /** Among the live ones; undefined once closed. */
  membership: Membership | undefined;
  readonly #counters: ByteCounters;
  /** True when `counters.sent` runs from client to server (the outbound side). */
  readonly #clientIsLocal: boolean;

  constructor(series: Series, counters: ByteCounters, clientIsLocal: boolean) {
    this.series = series;
    this.#counters = counters;
    this.#clientIsLocal = clientIsLocal;
  }

  get received(): number {
    return this.#clientIsLocal ? this.#counters.sent : this.#counters.received;
  }

  get sent(): number {
    return this.#clientIsLocal ? this.#counters.received : this.#counters.sent;
  }

  close(flag: ResponseFlag): void {
    if (this.membership === undefined) return;
    this.membership.leave();
    this.membership = undefined;
    const { series } = this;
    series.bytesReceived += this.received;
    series.bytesSent += this.sent;
    series.closedByFlag.set(flag, (series.closedByFlag.get(flag) ?? 0) + 1);
    if (flag !== "-") series.failedByFlag.set(flag, (series.failedByFlag.get(flag) ?? 0) + 1);
  }
}

export class TrafficMetrics {
  readonly #series = new Map<string, Series>();
  readonly #seriesBetween = new Between<Series>();
  readonly #live = new ChurnSet<Live>();

  /** Counts a connection as opened. */
  openFor(facts: ConnectionFacts, counters: ByteCounters): TrafficConnection {
    const series = this.#seriesBetween.find(facts, () => this.#find(trafficLabels(facts)));
    return this.#open(series, counters, facts.direction === "outbound");
  }

  /** The same by its labels. */
  open(labels: TrafficLabels, counters: ByteCounters, clientIsLocal: boolean): TrafficConnection {
    return this.#open(this.#find(labels), counters, clientIsLocal);
  }

  #open(series: Series, counters: ByteCounters, clientIsLocal: boolean): TrafficConnection {
    series.opened++;
    const live = new Live(series, counters, clientIsLocal);
    live.membership = this.#live.add(live);
    return live;
  }

  /** Counts a connection that failed before it could be opened. */
  fail(labels: TrafficLabels, flag: ResponseFlag): void {
    const { failedByFlag } = this.#find(labels);
    failedByFlag.set(flag, (failedByFlag.get(flag) ?? 0) + 1);
  }

  /** For connections of which thousands end in a second: their series is looked up once. */
  account(labels: TrafficLabels): TrafficAccount {
    const series = this.#find(labels);
    return {
      add: (received, sent) => {
        series.opened++;
        series.bytesReceived += received;
        series.bytesSent += sent;
        series.closedByFlag.set("-", (series.closedByFlag.get("-") ?? 0) + 1);
      },
    };
  }

  get liveConnections(): number {
    return this.#live.size;
  }

  #find(labels: TrafficLabels): Series {
    const key = Object.values(labels).join("\u0000");
    const known = this.#series.get(key);
    if (known !== undefined) return known;
    const fold = this.#series.size >= SERIES_MAX;
    if (fold && this.#series.has("")) return this.#series.get("")!;
    const series = newSeries(fold ? unknownLabels(labels) : labels);
    this.#series.set(fold ? "" : key, series);
    return series;
  }

  /** The families as of now, in prom-client's JSON shape, so that the main thread can sum workers. */
  collect(): MetricFamily[] {
    const opened = family(
      "istio_tcp_connections_opened",
      "The total number of TCP connections opened",
    );
    const closed = family(
      "istio_tcp_connections_closed",
      "The total number of TCP connections closed",
    );
    const received = family(
      "istio_tcp_received_bytes",
      "The size of total bytes received during request in case of a TCP connection",
    );
    const sent = family(
      "istio_tcp_sent_bytes",
      "The size of total bytes sent during response in case of a TCP connection",
    );
    const failed = family(
      "istio_tcp_connections_failed",
      "The total number of TCP connections that failed to establish (unstable)",
    );
    const liveBytes = this.#liveBytes();
    for (const series of this.#series.values()) {
      const live = liveBytes.get(series) ?? { received: 0, sent: 0 };
      const labels = { ...series.labels, response_flags: "-" };
      opened.values.push({ labels, value: series.opened });
      received.values.push({ labels, value: series.bytesReceived + live.received });
      sent.values.push({ labels, value: series.bytesSent + live.sent });
      pushFlags(closed, series.labels, series.closedByFlag);
      pushFlags(failed, series.labels, series.failedByFlag);
    }
    return [opened, closed, received, sent, failed].filter(({ values }) => values.length > 0);
  }

  #liveBytes(): Map<Series, { received: number; sent: number }> {
    const totals = new Map<Series, { received: number; sent: number }>();
    for (const live of this.#live) {
      const total = totals.getOrInsertComputed(live.series, () => ({ received: 0, sent: 0 }));
      total.received += live.received;
      total.sent += live.sent;
    }
    return totals;
  }
}

function newSeries(labels: TrafficLabels): Series {
  return {
    labels,
    opened: 0,
    closedByFlag: new Map(),
    failedByFlag: new Map(),
    bytesReceived: 0,
    bytesSent: 0,
  };
}

function unknownLabels(labels: TrafficLabels): TrafficLabels {
  return Object.fromEntries(Object.keys(labels).map((key) => [key, "unknown"]));
}

function family(name: string, help: string): MetricFamily {
  return { name, help, type: "counter", aggregator: "sum", values: [] };
}

function pushFlags(
  target: MetricFamily,
  labels: TrafficLabels,
  counts: ReadonlyMap<ResponseFlag, number>,
): void {
  for (const [flag, value] of counts) {
    target.values.push({ labels: { ...labels, response_flags: flag }, value });
  }
}
