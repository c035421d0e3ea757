import { describe, expect, it } from "vitest";
import { RESPONSE_FLAGS } from "../proxy/proxy-error.ts";
import type { TrafficLabels } from "./traffic-labels.ts";
import { SERIES_MAX, TrafficMetrics } from "./traffic-metrics.ts";

const LABELS: TrafficLabels = { reporter: "source", source_workload: "web" };

function values(metrics: TrafficMetrics, name: string) {
  return metrics.collect().find((family) => family.name === name)?.values;
}

describe("the traffic families", () => {
  it("are left out as long as they have no sample", () => {
    expect(new TrafficMetrics().collect()).toEqual([]);
  });

  it("say in their help which of them is not stable", () => {
    const metrics = new TrafficMetrics();
    metrics.open(LABELS, { sent: 0, received: 0 }, true).close("DENY");
    const unstable = metrics.collect().filter(({ help }) => help.includes("(unstable)"));
    expect(metrics.collect()).toHaveLength(5);
    expect(unstable.map(({ name }) => name)).toEqual(["istio_tcp_connections_failed"]);
  });

  it("count a connection as opened without flags, and as closed with its final one", () => {
    const metrics = new TrafficMetrics();
    const connection = metrics.open(LABELS, { sent: 0, received: 0 }, true);
    expect(values(metrics, "istio_tcp_connections_opened")).toEqual([
      { labels: { ...LABELS, response_flags: "-" }, value: 1 },
    ]);
    connection.close("-");
    expect(values(metrics, "istio_tcp_connections_closed")).toEqual([
      { labels: { ...LABELS, response_flags: "-" }, value: 1 },
    ]);
    expect(values(metrics, "istio_tcp_connections_failed")).toBeUndefined();
  });

  it.each(RESPONSE_FLAGS.filter((flag) => flag !== "-"))("count %s as failed too", (flag) => {
    const metrics = new TrafficMetrics();
    metrics.open(LABELS, { sent: 0, received: 0 }, true).close(flag);
    for (const name of ["istio_tcp_connections_closed", "istio_tcp_connections_failed"]) {
      expect(values(metrics, name)).toEqual([
        { labels: { ...LABELS, response_flags: flag }, value: 1 },
      ]);
    }
  });

  it("count a second close for nothing", () => {
    const metrics = new TrafficMetrics();
    const connection = metrics.open(LABELS, { sent: 1, received: 0 }, true);
    connection.close("-");
    connection.close("DENY");
    expect(values(metrics, "istio_tcp_connections_failed")).toBeUndefined();
    expect(metrics.liveConnections).toBe(0);
  });
});

describe("bytes", () => {
  it.each([
    ["source", true, 5, 7],
    ["destination", false, 7, 5],
  ])("are received from the client by both reporters: %s", (_, clientIsLocal, received, sent) => {
    const metrics = new TrafficMetrics();
    metrics.open(LABELS, { sent: 5, received: 7 }, clientIsLocal);
    expect(values(metrics, "istio_tcp_received_bytes")?.[0]?.value).toBe(received);
    expect(values(metrics, "istio_tcp_sent_bytes")?.[0]?.value).toBe(sent);
  });

  it("grow while the connection lives, and are counted once when it is closed", () => {
    const metrics = new TrafficMetrics();
    const counters = { sent: 1, received: 0 };
    const connection = metrics.open(LABELS, counters, true);
    counters.sent = 10;
    expect(values(metrics, "istio_tcp_received_bytes")?.[0]?.value).toBe(10);
    connection.close("-");
    metrics.open(LABELS, { sent: 100, received: 0 }, true);
    expect(values(metrics, "istio_tcp_received_bytes")?.[0]?.value).toBe(110);
  });
});

describe("series", () => {
  it("are bounded: past the limit new label sets share one that says unknown", () => {
    const metrics = new TrafficMetrics();
    for (let i = 0; i < SERIES_MAX; i++) {
      metrics.open({ peer: String(i) }, { sent: 0, received: 0 }, true);
    }
    expect(values(metrics, "istio_tcp_connections_opened")).toHaveLength(SERIES_MAX);
    metrics.open({ peer: "one more" }, { sent: 0, received: 0 }, true);
    metrics.open({ peer: "another" }, { sent: 0, received: 0 }, true);
    metrics.open({ peer: "0" }, { sent: 0, received: 0 }, true);
    const opened = values(metrics, "istio_tcp_connections_opened")!;
    expect(opened).toHaveLength(SERIES_MAX + 1);
    expect(opened.at(-1)).toEqual({ labels: { peer: "unknown", response_flags: "-" }, value: 2 });
    expect(opened[0]?.value).toBe(2);
  });
});
