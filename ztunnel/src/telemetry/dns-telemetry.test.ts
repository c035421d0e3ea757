import { expect, it } from "vitest";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { renderOpenMetrics } from "@ambit/common/telemetry/exposition.ts";
import { DNS_SERIES_MAX, type DnsEvent, DnsTelemetry } from "./dns-telemetry.ts";

const event = (changes: Partial<DnsEvent> = {}): DnsEvent => ({
  client: undefined,
  type: 1,
  transport: "udp",
  name: "a.b",
  result: "success",
  endpoints: 1,
  ...changes,
});

function telemetry(level = "info") {
  const { log, lines } = memoryLog(level);
  return { dns: new DnsTelemetry(log.scope("dns")), lines };
}

it("keeps its series bounded: one more folds into a series that says unknown", () => {
  const { dns } = telemetry();
  for (let i = 0; i <= DNS_SERIES_MAX + 1; i++) {
    const client = { canonicalName: `app-${i}`, canonicalRevision: "v1" } as DnsEvent["client"];
    dns.record(event({ client }));
  }
  const values = dns.collect()[0]!.values;
  expect(values).toHaveLength(DNS_SERIES_MAX + 1);
  expect(values.at(-1)).toMatchObject({
    labels: { request_query_type: "unknown", source_canonical_service: "unknown" },
    value: 2,
  });
});

it("names types that nobody registered unknown, so that a pod cannot make labels", () => {
  const { dns } = telemetry();
  for (let type = 60_000; type < 60_100; type++) dns.record(event({ type }));
  expect(dns.collect()[0]!.values).toMatchObject([
    { labels: { request_query_type: "unknown" }, value: 100 },
  ]);
});

it("puts each duration in its bucket, bounds included", () => {
  const { dns } = telemetry();
  for (const durationMs of [0.5, 0.6, 1, 10, 5_000, 5_001]) {
    dns.record(event({ upstream: { durationMs, failed: false } }));
  }
  const text = renderOpenMetrics(dns.collect());
  const counts = [...text.matchAll(/_bucket\{.*le="(.*)"\} (\d+)/g)].map(([, le, n]) => [le, n]);
  expect(counts).toEqual([
    ["0.0005", "1"],
    ["0.001", "3"],
    ["0.01", "4"],
    ["0.1", "4"],
    ["1", "4"],
    ["5", "5"],
    ["+Inf", "6"],
  ]);
  expect(text).toContain("# TYPE istio_dns_upstream_request_duration_seconds histogram");
  expect(text).toMatch(/istio_dns_upstream_request_duration_seconds_count\{.*\} 6/);
});

it("writes no line unless somebody wants it", () => {
  const { dns, lines } = telemetry("info");
  dns.record(event());
  expect(lines).toEqual([]);
});
