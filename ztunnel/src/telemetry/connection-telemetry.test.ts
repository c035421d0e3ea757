import { describe, expect, it } from "vitest";
import type { Ip } from "@ambit/common/net/ip.ts";
import { Log } from "@ambit/common/telemetry/log.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import type { SpiffeId } from "@ambit/common/tls/identity.ts";
import { ProxyError } from "../proxy/proxy-error.ts";
import {
  type ConnectionFacts,
  ConnectionTelemetry,
  logEarlyFailure,
  trafficLabels,
} from "./connection-telemetry.ts";
import { TrafficMetrics } from "./traffic-metrics.ts";

const source = { ip: "10.0.0.1" as Ip, port: 40_000 };
const destination = { ip: "10.0.0.2" as Ip, port: 15_008 };
const facts: ConnectionFacts = {
  id: "abc-1",
  direction: "outbound",
  path: "hbone",
  sourceAddress: source,
  destinationAddress: destination,
  hboneTarget: "10.0.0.2:8080",
  source: { name: "client-1", namespace: "ns", workload: "client", canonicalName: "client" },
  destination: { name: "web-1", namespace: "shop", workload: "web", cluster: "c1" },
  service: { hostname: "web.shop.svc.cluster.local", namespace: "shop", name: "web" },
  sourceIdentity: "spiffe://td/ns/ns/sa/client" as SpiffeId,
  destinationIdentity: "spiffe://td/ns/shop/sa/web" as SpiffeId,
  destinationPrincipal: "spiffe://td/ns/shop/sa/web" as SpiffeId,
};

function setUp(level = "info") {
  const lines: string[] = [];
  const clock = new FakeClock();
  const access = new Log({ level, write: (line) => lines.push(line) }).scope("access");
  return { lines, clock, sinks: { access, clock, metrics: new TrafficMetrics() } };
}

/** A line without its time stamp. */
const untimed = (line: string | undefined) => line?.trimEnd().split("\t").slice(1).join("\t");

describe("the access line", () => {
  it("has Istio's fields in Istio's order, then ours", async () => {
    const { lines, clock, sinks } = setUp();
    const telemetry = new ConnectionTelemetry(sinks, facts);
    telemetry.counters.sent = 59;
    telemetry.counters.received = 148;
    await clock.advance(12);
    telemetry.close();
    telemetry.close();
    expect(lines.map(untimed)).toEqual([
      "info\taccess\tconnection complete\t" +
        'src.addr=10.0.0.1:40000 src.workload="client-1" src.namespace="ns" ' +
        'src.identity="spiffe://td/ns/ns/sa/client" ' +
        "dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:8080 " +
        'dst.service="web.shop.svc.cluster.local" dst.workload="web-1" dst.namespace="shop" ' +
        'dst.identity="spiffe://td/ns/shop/sa/web" dst.cluster="c1" direction="outbound" ' +
        'bytes_sent=59 bytes_recv=148 duration="12ms" path=hbone id=abc-1',
    ]);
  });

  it("of a failure has the reason and its code, as an error", () => {
    const { lines, sinks } = setUp();
    new ConnectionTelemetry(sinks, facts).close(new ProxyError("POLICY_DENIED", "denied by ns/p"));
    expect(untimed(lines[0])).toMatch(/^error\taccess\tconnection complete\t/);
    expect(lines[0]).toContain('error="denied by ns/p" reason=POLICY_DENIED path=hbone');
  });

  it("of a connection that opens is there at debug only", () => {
    const quiet = setUp();
    const opened = new ConnectionTelemetry(quiet.sinks, facts);
    expect([quiet.lines, opened.counters]).toEqual([[], { sent: 0, received: 0 }]);
    const loud = setUp("debug");
    const logged = new ConnectionTelemetry(loud.sinks, facts);
    logged.close();
    expect(loud.lines).toHaveLength(2);
    expect(untimed(loud.lines[0])).toMatch(/^debug\taccess\tconnection opened\tsrc.addr=/);
  });

  it("of what failed before its parties were known is short", () => {
    const { lines, sinks } = setUp();
    const error = new ProxyError("UNKNOWN_SOURCE", "who?");
    logEarlyFailure(sinks.access, { source, destination, direction: "inbound", error });
    logEarlyFailure(sinks.access, { source, direction: "inbound", error });
    expect(lines.map(untimed)).toEqual([
      'warn\taccess\tconnection failed\tsrc.addr=10.0.0.1:40000 dst.addr=10.0.0.2:15008 direction="inbound" error="who?" reason=UNKNOWN_SOURCE',
      'warn\taccess\tconnection failed\tsrc.addr=10.0.0.1:40000 direction="inbound" error="who?" reason=UNKNOWN_SOURCE',
    ]);
  });
});

describe("the labels of a connection", () => {
  it("name both ends; what is not known is unknown", () => {
    expect(trafficLabels(facts)).toMatchObject({
      reporter: "source",
      source_workload: "client",
      source_principal: "spiffe://td/ns/ns/sa/client",
      source_version: "unknown",
      destination_service: "web.shop.svc.cluster.local",
      destination_service_name: "web",
      destination_workload_namespace: "shop",
      destination_cluster: "c1",
      request_protocol: "tcp",
      connection_security_policy: "mutual_tls",
    });
  });

  it("say mutual_tls only when both identities are proven", () => {
    const { sourceIdentity: _, ...plain } = facts;
    const labels = trafficLabels({ ...plain, direction: "inbound" });
    expect(labels).toMatchObject({
      reporter: "destination",
      source_principal: "unknown",
      destination_principal: "spiffe://td/ns/shop/sa/web",
      connection_security_policy: "unknown",
    });
  });

  it("have localities only where one is known", () => {
    expect(Object.keys(trafficLabels(facts))).not.toContain("source_region");
    const located = { ...facts, destination: { ...facts.destination, zone: "z1" } };
    expect(trafficLabels(located)).toMatchObject({
      source_region: "unknown",
      source_zone: "unknown",
      destination_region: "unknown",
      destination_zone: "z1",
    });
  });
});
