// What is told of DNS queries: Istio's four metric families, and one line each under scope `dns` for who
// asks for debug (ztunnel §7.1, §7.2). Owns the series.

import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { Workload } from "../state/workload.ts";
import type { MetricFamily } from "./traffic-metrics.ts";

/** Past this many series, new ones fold into one: pods come and go, and their services with them. */
export const DNS_SERIES_MAX = 5_000;

/** Upper bounds of the duration's buckets in seconds, as Istio's. */
const BUCKETS_SECONDS = [0.0005, 0.001, 0.01, 0.1, 1, 5] as const;

/** Mnemonics of the types that clients ask for; all others are "unknown", so that labels are bounded. */
const TYPE_NAMES: ReadonlyMap<number, string> = new Map([
  [1, "a"],
  [2, "ns"],
  [5, "cname"],
  [6, "soa"],
  [12, "ptr"],
  [15, "mx"],
  [16, "txt"],
  [28, "aaaa"],
  [33, "srv"],
  [35, "naptr"],
  [43, "ds"],
  [48, "dnskey"],
  [52, "tlsa"],
  [64, "svcb"],
  [65, "https"],
  [252, "axfr"],
  [255, "any"],
  [257, "caa"],
]);

const UNKNOWN = "unknown";

export interface DnsEvent {
  /** undefined: the control plane does not know the pod. */
  readonly client: Workload | undefined;
  readonly type: number;
  readonly transport: "udp" | "tcp";
  /** undefined: not a name that we could print. */
  readonly name: string | undefined;
  /** In words. */
  readonly result: string;
  /** Records in the answer. */
  readonly endpoints: number;
  /** Only for a query that went upstream. */
  readonly upstream?: { readonly durationMs: number; readonly failed: boolean };
}

interface Series {
  readonly labels: Readonly<Record<string, string>>;
  requests: number;
  forwarded: number;
  failed: number;
  durationSeconds: number;
  /** By bucket; the last one is beyond all bounds. */
  readonly counts: number[];
}

export class DnsTelemetry {
  readonly #log: Logger;
  readonly #series = new Map<string, Series>();

  constructor(log: Logger) {
    this.#log = log;
  }

  record(event: DnsEvent): void {
    const series = this.#find(event);
    series.requests++;
    if (event.upstream !== undefined) countUpstream(series, event.upstream);
    if (!this.#log.enabled("debug")) return;
    const { client, type, name, result, endpoints } = event;
    this.#log.debug("dns query", {
      "src.workload": client?.name ?? UNKNOWN,
      "src.namespace": client?.namespace ?? UNKNOWN,
      query: typeName(type).toUpperCase(),
      domain: name ?? UNKNOWN,
      result,
      endpoints,
    });
  }

  #find({ client, type, transport }: DnsEvent): Series {
    const labels = {
      request_query_type: typeName(type),
      request_protocol: transport,
      source_canonical_service: client?.canonicalName || UNKNOWN,
      source_canonical_revision: client?.canonicalRevision || UNKNOWN,
    };
    const key = Object.values(labels).join("\u0000");
    const known = this.#series.get(key);
    if (known !== undefined) return known;
    const fold = this.#series.size >= DNS_SERIES_MAX;
    return this.#series.getOrInsertComputed(fold ? "" : key, () =>
      newSeries(fold ? FOLDED_LABELS : labels),
    );
  }

  collect(): MetricFamily[] {
    const all = [...this.#series.values()];
    const counter = (name: string, help: string, value: (series: Series) => number) => ({
      name,
      help: `${help} (unstable)`,
      type: "counter" as const,
      aggregator: "sum" as const,
      values: all
        .map((series) => ({ labels: { ...series.labels }, value: value(series) }))
        .filter((sample) => sample.value > 0),
    });
    const families: MetricFamily[] = [
      counter("istio_dns_requests", "Total number of DNS requests", ({ requests }) => requests),
      counter(
        "istio_dns_upstream_requests",
        "Total number of DNS requests forwarded to upstream",
        ({ forwarded }) => forwarded,
      ),
      counter(
        "istio_dns_upstream_failures",
        "Total number of DNS requests that failed to forward upstream",
        ({ failed }) => failed,
      ),
      {
        name: DURATION,
        help: "Total time in seconds Istio takes to get DNS response from upstream (unstable)",
        type: "histogram",
        aggregator: "sum",
        values: all.filter(({ forwarded }) => forwarded > 0).flatMap(histogramSamples),
      },
    ];
    return families.filter(({ values }) => values.length > 0);
  }
}

const DURATION = "istio_dns_upstream_request_duration_seconds";

const FOLDED_LABELS = {
  request_query_type: UNKNOWN,
  request_protocol: UNKNOWN,
  source_canonical_service: UNKNOWN,
  source_canonical_revision: UNKNOWN,
};

function typeName(type: number): string {
  return TYPE_NAMES.get(type) ?? UNKNOWN;
}

function newSeries(labels: Series["labels"]): Series {
  const counts = [...BUCKETS_SECONDS, Infinity].map(() => 0);
  return { labels, requests: 0, forwarded: 0, failed: 0, durationSeconds: 0, counts };
}

function countUpstream(series: Series, upstream: NonNullable<DnsEvent["upstream"]>): void {
  const seconds = upstream.durationMs / 1000;
  series.forwarded++;
  if (upstream.failed) series.failed++;
  series.durationSeconds += seconds;
  const bucket = BUCKETS_SECONDS.findIndex((bound) => seconds <= bound);
  series.counts[bucket < 0 ? BUCKETS_SECONDS.length : bucket]!++;
}

/** Cumulative buckets, the sum and the count. */
function histogramSamples({ labels, counts, durationSeconds, forwarded }: Series) {
  let total = 0;
  const buckets = [...BUCKETS_SECONDS, "+Inf" as const].map((bound, index) => {
    total += counts[index]!;
    return {
      metricName: `${DURATION}_bucket`,
      labels: { ...labels, le: `${bound}` },
      value: total,
    };
  });
  return [
    ...buckets,
    { metricName: `${DURATION}_sum`, labels: { ...labels }, value: durationSeconds },
    { metricName: `${DURATION}_count`, labels: { ...labels }, value: forwarded },
  ];
}
