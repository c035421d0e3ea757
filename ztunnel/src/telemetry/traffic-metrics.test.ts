import { describe, expect, it } from "vitest";
import { SERIES_MAX, TrafficMetrics } from "./traffic-metrics.ts";

const counters = (sent = 0, received = 0) => ({ sent, received });

/** Values of a family by the label `to` and the flag. */
function values(metrics: TrafficMetrics, name: string): Record<string, number> {
  const family = metrics.collect().find((one) => one.name === `istio_tcp_${name}`);
  return Object.fromEntries(
    (family?.values ?? []).map(({ labels, value }) => [
      `${labels["to"]} ${labels["response_flags"]}`,
      value,
    ]),
  );
}

describe("traffic metrics", () => {
  it("count a connection when it opens and when it closes", () => {
    const metrics = new TrafficMetrics();
    const first = metrics.open({ to: "web" }, counters(), true);
    metrics.open({ to: "web" }, counters(), true);
    expect(values(metrics, "connections_opened")).toEqual({ "web -": 2 });
    expect(values(metrics, "connections_closed")).toEqual({});
    expect(metrics.liveConnections).toBe(2);
    first.close("-");
    first.close("-");
    expect(values(metrics, "connections_closed")).toEqual({ "web -": 1 });
    expect(metrics.liveConnections).toBe(1);
  });

  it("read the bytes of living connections, from the client's view on both sides", () => {
    const metrics = new TrafficMetrics();
    const live = counters(10, 3);
    const outbound = metrics.open({ to: "web" }, live, true);
    metrics.open({ to: "db" }, counters(10, 3), false);
    expect(values(metrics, "received_bytes")).toEqual({ "web -": 10, "db -": 3 });
    expect(values(metrics, "sent_bytes")).toEqual({ "web -": 3, "db -": 10 });
    live.sent = 20;
    outbound.close("-");
    live.sent = 1_000; // What comes after the close is not this connection's any more.
    expect(values(metrics, "received_bytes")).toMatchObject({ "web -": 20 });
  });

  it("count failures by their flag, whether before or after the opening", () => {
    const metrics = new TrafficMetrics();
    metrics.fail({ to: "web" }, "DENY");
    metrics.open({ to: "web" }, counters(), true).close("CONNECT");
    expect(values(metrics, "connections_failed")).toEqual({ "web DENY": 1, "web CONNECT": 1 });
    expect(values(metrics, "connections_closed")).toEqual({ "web CONNECT": 1 });
  });

  it("hold as many series as the limit, and fold the next ones into one of unknowns", () => {
    const metrics = new TrafficMetrics();
    for (let i = 0; i < SERIES_MAX; i++) metrics.fail({ to: String(i) }, "-");
    expect(Object.keys(values(metrics, "connections_opened"))).toHaveLength(SERIES_MAX);
    metrics.open({ to: "one past" }, counters(1), true);
    metrics.open({ to: "two past" }, counters(2), true);
    metrics.open({ to: "7" }, counters(4), true);
    const opened = values(metrics, "connections_opened");
    expect(Object.keys(opened)).toHaveLength(SERIES_MAX + 1);
    expect([opened["unknown -"], opened["7 -"]]).toEqual([2, 1]);
  });
});
