import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { mergeFamilies, metricsReply, prometheusReply, renderPrometheus } from "./exposition.ts";
import { Metrics } from "./metrics.ts";

const request = (headers: Record<string, string> = {}) => ({
  query: new URLSearchParams(),
  headers,
});

function sample(): Metrics {
  const metrics = new Metrics({ unstable: true });
  metrics.counter("pushes", "Pushes.", ["type"]).inc({ type: 'a"b\\c\nd' }, 2);
  metrics.counter("unused", "Never counted.", ["type"]);
  metrics.histogram("seconds", "Time.", [0.1, 1]).observe(0.5);
  metrics.gauge("connected", "Proxies.", [], (gauge) => gauge.set(7));
  return metrics;
}

describe("metrics", () => {
  it("render as classic Prometheus text with their names as they are", async () => {
    expect(renderPrometheus(await sample().families())).toBe(
      [
        "# HELP pushes Pushes. (unstable)",
        "# TYPE pushes counter",
        'pushes{type="a\\"b\\\\c\\nd"} 2',
        "# HELP seconds Time. (unstable)",
        "# TYPE seconds histogram",
        'seconds_bucket{le="0.1"} 0',
        'seconds_bucket{le="1"} 1',
        'seconds_bucket{le="+Inf"} 1',
        "seconds_sum 0.5",
        "seconds_count 1",
        "# HELP connected Proxies. (unstable)",
        "# TYPE connected gauge",
        "connected 7",
        "",
      ].join("\n"),
    );
  });

  it("render as OpenMetrics with counters in _total and an end mark", async () => {
    const families = await sample().families();
    const { body, headers } = await metricsReply(
      families,
      request({ accept: "application/openmetrics-text; version=1.0.0" }),
    );
    expect(headers?.["content-type"]).toContain("application/openmetrics-text");
    expect(body).toContain("# TYPE pushes counter\npushes_total{");
    expect(body.toString().endsWith("# EOF\n")).toBe(true);
  });

  it("compress when the client accepts it", async () => {
    const families = await sample().families();
    const { body, headers } = await prometheusReply(
      families,
      request({ "accept-encoding": "gzip" }),
    );
    expect(headers?.["content-encoding"]).toBe("gzip");
    expect(gunzipSync(body as Buffer).toString()).toBe(renderPrometheus(families));
  });

  it("of several threads add up", async () => {
    const metrics = sample();
    metrics.collectFrom(() => sample().families());
    const [pushes] = mergeFamilies([await metrics.families()]);
    expect(pushes?.values).toMatchObject([{ value: 4 }]);
  });
});
