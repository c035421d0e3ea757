import { expect, it } from "vitest";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { RevocationGuard } from "../proxy/revocation.ts";
import { TestMesh } from "../state/testing-mesh.ts";
import { DnsTelemetry } from "./dns-telemetry.ts";
import { FailureLog } from "./failure-log.ts";
import { OnDemandDnsMetrics } from "./on-demand-dns.ts";
import { OpenSockets } from "./open-sockets.ts";
import { PolicyTelemetry } from "./policy-telemetry.ts";
import { TrafficMetrics } from "./traffic-metrics.ts";

/** What dashboards may rely on; everything else says that it may change. */
const STABLE = [
  "istio_tcp_connections_opened",
  "istio_tcp_connections_closed",
  "istio_tcp_received_bytes",
  "istio_tcp_sent_bytes",
];

it("a worker's metrics other than those of traffic all say that they are unstable", () => {
  const log = memoryLog().log.scope("test");
  const client = new TestMesh().workload("client", ["10.0.0.1"]).get("client");
  const traffic = new TrafficMetrics();
  traffic.open({ reporter: "source" }, { sent: 1, received: 1 }, true).close("DENY");
  const failures = new FailureLog();
  failures.record({
    id: "1",
    reason: "POLICY_DENIED",
    flag: "DENY",
    error: "",
    reporter: "source",
    atMs: 0,
    src: "",
  });
  const names = new OnDemandDnsMetrics();
  names.count(client, "a.b");
  const dns = new DnsTelemetry(log);
  const query = { client, type: 1, transport: "udp", name: "a", result: "", endpoints: 0 } as const;
  dns.record({ ...query, upstream: { durationMs: 1, failed: true } });
  const policy = new PolicyTelemetry(log, false);
  policy.decided(client, {
    allowed: true,
    reason: "no-allow-policies",
    dryRunMatches: [],
    dryRunMisses: true,
  });
  const revocation = new RevocationGuard();
  revocation.refusal("source", "");
  const all = [traffic, failures, names, dns, policy, revocation, new OpenSockets()];
  const families = all.flatMap((source) => source.collect());
  expect(families.length).toBeGreaterThan(12);
  const stable = families.filter(({ help }) => !help.endsWith("(unstable)"));
  expect(stable.map(({ name }) => name)).toEqual(STABLE);
});
