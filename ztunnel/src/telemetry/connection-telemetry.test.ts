import { describe, expect, it } from "vitest";
import type { Ip } from "@ambit/common/net/ip.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { Log, memoryLog } from "@ambit/common/telemetry/log.ts";
import type { SpiffeId } from "@ambit/common/tls/identity.ts";
import { PROXY_ERROR_CODES, ProxyError } from "../proxy/proxy-error.ts";
import {
  type ConnectionFacts,
  ConnectionTelemetry,
  logEarlyFailure,
} from "./connection-telemetry.ts";
import { trafficLabels } from "./traffic-labels.ts";
import { FailureLog } from "./failure-log.ts";
import { partyOfBaggage, partyOfWorkload, UNKNOWN_PARTY } from "./party.ts";
import { TestMesh } from "../state/testing-mesh.ts";
import { TrafficMetrics } from "./traffic-metrics.ts";

const SOURCE_ID = "spiffe://cluster.local/ns/ns/sa/web" as SpiffeId;
const DESTINATION_ID = "spiffe://cluster.local/ns/ns/sa/db" as SpiffeId;

const FULL: ConnectionFacts = {
  id: "p.0-1",
  direction: "outbound",
  path: "hbone",
  sourceAddress: { ip: "10.0.0.1" as Ip, port: 40_000 },
  destinationAddress: { ip: "fd00::2" as Ip, port: 15_008 },
  hboneTarget: "[fd00::2]:5432",
  source: {
    name: "web-1",
    namespace: "shop",
    workload: "web",
    canonicalName: "web-app",
    canonicalRevision: "v1",
    cluster: "east",
    region: "r1",
  },
  destination: {
    name: "db-0",
    namespace: "data",
    workload: "db",
    canonicalName: "db-app",
    canonicalRevision: "v2",
    cluster: "west",
    zone: "z2",
  },
  service: { hostname: "db.data.svc.cluster.local", namespace: "data", name: "db" },
  sourceIdentity: SOURCE_ID,
  destinationIdentity: DESTINATION_ID,
  destinationPrincipal: DESTINATION_ID,
};

/** As little as an inbound plaintext connection from nobody has. */
const BARE: ConnectionFacts = {
  id: "p.0-2",
  direction: "inbound",
  path: "tcp",
  sourceAddress: { ip: "192.0.2.1" as Ip, port: 1 },
  destinationAddress: { ip: "10.0.0.2" as Ip, port: 80 },
  source: UNKNOWN_PARTY,
  destination: UNKNOWN_PARTY,
};

function setUp(level = "info") {
  const { log, lines } = memoryLog(level);
  const clock = new FakeClock();
  const failures = new FailureLog();
  const sinks = { metrics: new TrafficMetrics(), failures, access: log.scope("access"), clock };
  const parsed = () => lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  return { sinks, clock, parsed };
}

describe("labels", () => {
  it("have Istio's names in Istio's order", () => {
    expect(trafficLabels(FULL)).toEqual({
      reporter: "source",
      source_workload: "web",
      source_canonical_service: "web-app",
      source_canonical_revision: "v1",
      source_workload_namespace: "shop",
      source_principal: SOURCE_ID,
      source_app: "web-app",
      source_version: "v1",
      source_cluster: "east",
      destination_service: "db.data.svc.cluster.local",
      destination_service_namespace: "data",
      destination_service_name: "db",
      destination_workload: "db",
      destination_canonical_service: "db-app",
      destination_canonical_revision: "v2",
      destination_workload_namespace: "data",
      destination_principal: DESTINATION_ID,
      destination_app: "db-app",
      destination_version: "v2",
      destination_cluster: "west",
      request_protocol: "tcp",
      connection_security_policy: "mutual_tls",
      source_region: "r1",
      source_zone: "unknown",
      destination_region: "unknown",
      destination_zone: "z2",
    });
    expect(Object.keys(trafficLabels(FULL)).slice(0, 2)).toEqual(["reporter", "source_workload"]);
  });

  it("say unknown for what is not known, and nothing of localities when none is", () => {
    const { reporter, request_protocol, ...others } = trafficLabels(BARE);
    expect([reporter, request_protocol]).toEqual(["destination", "tcp"]);
    expect(new Set(Object.values(others))).toEqual(new Set(["unknown"]));
    expect(Object.keys(others)).not.toContain("source_region");
  });

  it.each([
    ["only the client proved who it is", { sourceIdentity: SOURCE_ID }],
    ["only the server did", { destinationIdentity: DESTINATION_ID }],
  ])("do not say mutual_tls when %s", (_, proven) => {
    expect(trafficLabels({ ...BARE, ...proven })["connection_security_policy"]).toBe("unknown");
  });

  it("name the destination's principal on plaintext too, as xDS knows it", () => {
    expect(
      trafficLabels({ ...BARE, destinationPrincipal: DESTINATION_ID })["destination_principal"],
    ).toBe(DESTINATION_ID);
  });
});

describe("the access line", () => {
  it("has Istio's fields in Istio's order, then ours", async () => {
    const { sinks, clock, parsed } = setUp();
    const telemetry = new ConnectionTelemetry(sinks, FULL, { sent: 3, received: 4 });
    await clock.advance(13);
    telemetry.close();
    const [{ time: _, ...line }] = parsed() as [Record<string, unknown>];
    expect(line).toEqual({
      level: "info",
      scope: "access",
      message: "connection complete",
      "src.addr": "10.0.0.1:40000",
      "src.workload": "web-1",
      "src.namespace": "shop",
      "src.identity": SOURCE_ID,
      "src.cluster": "east",
      "dst.addr": "[fd00::2]:15008",
      "dst.hbone_addr": "[fd00::2]:5432",
      "dst.service": "db.data.svc.cluster.local",
      "dst.workload": "db-0",
      "dst.namespace": "data",
      "dst.identity": DESTINATION_ID,
      "dst.cluster": "west",
      direction: "outbound",
      bytes_sent: 3,
      bytes_recv: 4,
      duration: "13ms",
      path: "hbone",
      id: "p.0-1",
    });
    expect(Object.keys(line).indexOf("direction")).toBe(15);
    expect(Object.keys(line).slice(-3)).toEqual(["duration", "path", "id"]);
  });

  it("leaves out what is not known", () => {
    const { sinks, parsed } = setUp();
    new ConnectionTelemetry(sinks, BARE).close();
    expect(Object.keys(parsed()[0]!).join(" ")).toBe(
      "level time scope message src.addr dst.addr direction bytes_sent bytes_recv duration path id",
    );
  });

  it.each(PROXY_ERROR_CODES)("of an end by %s gives that code and the metric's flag", (code) => {
    const { sinks, parsed } = setUp();
    const error = new ProxyError(code, `because of ${code}`);
    new ConnectionTelemetry(sinks, FULL).close(error);
    expect(parsed()[0]).toMatchObject({
      level: "error",
      message: "connection complete",
      error: `because of ${code}`,
      reason: code,
    });
    expect(sinks.failures.find(FULL.id)).toEqual([
      {
        id: FULL.id,
        reason: code,
        flag: error.flag,
        error: `because of ${code}`,
        reporter: "source",
        atMs: sinks.clock.nowMs(),
        src: "10.0.0.1:40000",
        dst: "[fd00::2]:5432",
        srcWorkload: "shop/web-1",
        dstWorkload: "data/db-0",
        srcIdentity: SOURCE_ID,
        dstService: "db.data.svc.cluster.local",
      },
    ]);
    const closed = sinks.metrics
      .collect()
      .find(({ name }) => name === "istio_tcp_connections_closed");
    expect(closed?.values[0]?.labels["response_flags"]).toBe(error.flag);
  });

  it("is written once, whatever ends the connection again", () => {
    const { sinks, parsed } = setUp();
    const telemetry = new ConnectionTelemetry(sinks, FULL);
    telemetry.close();
    telemetry.close(new ProxyError("DRAINED", "late"));
    expect(parsed()).toHaveLength(1);
  });

  it("is preceded by one at the opening when the level is debug", () => {
    const { sinks, parsed } = setUp("debug");
    new ConnectionTelemetry(sinks, FULL).close();
    expect(parsed().map(({ level, message }) => [level, message])).toEqual([
      ["debug", "connection opened"],
      ["info", "connection complete"],
    ]);
    expect(parsed()[0]).not.toHaveProperty("duration");
  });

  it("of a success is not written when only errors are wanted", () => {
    const { sinks, parsed } = setUp("error");
    new ConnectionTelemetry(sinks, FULL).close();
    new ConnectionTelemetry(sinks, FULL).close(new ProxyError("POLICY_DENIED", "no"));
    expect(parsed().map(({ reason }) => reason)).toEqual(["POLICY_DENIED"]);
  });

  it("of an early failure is short", () => {
    const { sinks, parsed } = setUp();
    const { sourceAddress: source, destinationAddress: destination } = FULL;
    const error = new ProxyError("SELF_CALL", "recursive call refused");
    logEarlyFailure(sinks, { id: "7f", source, destination, direction: "inbound", error });
    const [{ time: _, ...line }] = parsed() as [Record<string, unknown>];
    expect(line).toEqual({
      level: "warn",
      scope: "access",
      message: "connection failed",
      "src.addr": "10.0.0.1:40000",
      "dst.addr": "[fd00::2]:15008",
      direction: "inbound",
      error: "recursive call refused",
      reason: "SELF_CALL",
      id: "7f",
    });
  });

  it("in plain text quotes strings and leaves addresses bare", () => {
    const lines: string[] = [];
    const log = new Log({ write: (line) => lines.push(line) });
    const { sinks } = setUp();
    new ConnectionTelemetry({ ...sinks, access: log.scope("access") }, FULL).close();
    expect(lines[0]).toContain(
      '\tinfo\taccess\tconnection complete\tsrc.addr=10.0.0.1:40000 src.workload="web-1"',
    );
    expect(lines[0]).toContain('duration="0ms" path=hbone id=p.0-1\n');
  });
});

describe("a party", () => {
  it("of xDS names the pod; of baggage only its workload", () => {
    const workload = new TestMesh()
      .workload("web-1", ["10.0.0.1"], {
        workloadName: "web",
        canonicalName: "web-app",
        canonicalRevision: "v1",
        clusterId: "east",
        locality: { region: "r", zone: "z" },
      })
      .get("web-1");
    const known = {
      namespace: "ns",
      workload: "web",
      canonicalName: "web-app",
      canonicalRevision: "v1",
      cluster: "east",
      region: "r",
      zone: "z",
    };
    expect(partyOfWorkload(workload)).toEqual({ name: "web-1", ...known });
    expect(
      partyOfBaggage({
        clusterId: "east",
        namespace: "ns",
        workloadName: "web",
        serviceName: "web-app",
        revision: "v1",
        region: "r",
        zone: "z",
      }),
    ).toEqual(known);
  });

  it("without values is empty, not full of empty strings", () => {
    expect(partyOfBaggage({ namespace: "", workloadName: "" })).toEqual({});
  });
});
