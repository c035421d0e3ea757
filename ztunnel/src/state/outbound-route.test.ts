import { describe, expect, it } from "vitest";
import {
  IPFamilies,
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  NetworkMode,
  TunnelProtocol,
  WorkloadStatus,
} from "@ambit/api/gen/istio/workload_pb.ts";
import { parseIp } from "@ambit/common/net/ip.ts";
import { parseSocketAddress } from "@ambit/common/net/socket-address.ts";
import { resolveOutbound } from "./outbound-route.ts";
import { bytes, serves, TestMesh } from "./testing-mesh.ts";

const { REGION, ZONE, NETWORK, NODE } = LoadBalancing_Scope;

function route(mesh: TestMesh, to: string, random = 0) {
  return resolveOutbound(mesh.state, {
    source: mesh.get("client"),
    destination: parseSocketAddress(to)!,
    random: () => random,
  });
}

const mesh = () => new TestMesh().workload("client", ["10.0.0.1"]);
const identity = (name: string) => `spiffe://cluster.local/ns/ns/sa/${name}`;

describe("where an outbound connection goes", () => {
  it("passes an unknown address through", () => {
    expect(route(mesh(), "192.0.2.1:443")).toEqual({ kind: "passthrough" });
  });

  it("tunnels to a pod that speaks HBONE, always to port 15008, for that identity only", () => {
    expect(route(mesh().workload("a", ["10.0.0.2"]), "10.0.0.2:9000")).toMatchObject({
      kind: "hbone",
      nextHop: { ip: "10.0.0.2", port: 15_008 },
      authority: "10.0.0.2:9000",
      allowedIdentities: [identity("a")],
    });
  });

  it("goes in the clear to a pod that does not", () => {
    const plain = mesh().workload("a", ["10.0.0.2"], { tunnelProtocol: TunnelProtocol.NONE });
    expect(route(plain, "10.0.0.2:9000")).toMatchObject({
      kind: "tcp",
      target: { ip: "10.0.0.2", port: 9000 },
    });
  });

  it("translates a VIP to an endpoint and its port, and accepts the service's identities too", () => {
    const service = mesh()
      .service("web", ["10.96.0.1"], { subjectAltNames: [identity("other"), "garbage"] })
      .workload("a", ["10.0.0.2"], { services: serves("web", 8081) });
    expect(route(service, "10.96.0.1:80")).toMatchObject({
      authority: "10.0.0.2:8081",
      allowedIdentities: [identity("other"), identity("a")],
    });
  });

  it("writes a v6 authority in brackets", () => {
    expect(route(mesh().workload("a", ["fd00::2"]), "[fd00::2]:80")).toMatchObject({
      authority: "[fd00::2]:80",
    });
  });

  it.each<[string, TestMesh, string, RegExp]>([
    [
      "a service without endpoints",
      mesh().service("web", ["10.96.0.1"]),
      "10.96.0.1:80",
      /no ready endpoint/,
    ],
    [
      "a port the service does not have",
      mesh()
        .service("web", ["10.96.0.1"])
        .workload("a", ["10.0.0.2"], { services: serves("web") }),
      "10.96.0.1:81",
      /has no port 81 \(it has 80\)/,
    ],
    [
      "only unhealthy endpoints",
      mesh()
        .service("web", ["10.96.0.1"])
        .workload("a", ["10.0.0.2"], { services: serves("web"), status: WorkloadStatus.UNHEALTHY }),
      "10.96.0.1:80",
      /no ready endpoint/,
    ],
  ])("refuses %s, and says why", (_, state, to, reason) => {
    expect(route(state, to)).toMatchObject({
      kind: "refused",
      code: "NO_UPSTREAM",
      reason: expect.stringMatching(reason) as string,
    });
  });

  it("takes unhealthy endpoints when the service allows them", () => {
    const state = mesh()
      .service("web", ["10.96.0.1"], {
        loadBalancing: { healthPolicy: LoadBalancing_HealthPolicy.ALLOW_ALL },
      })
      .workload("a", ["10.0.0.2"], { services: serves("web"), status: WorkloadStatus.UNHEALTHY });
    expect(route(state, "10.96.0.1:80")).toMatchObject({ kind: "hbone" });
  });

  it("picks for a named target port only endpoints that map it", () => {
    const state = mesh()
      .service("web", ["10.96.0.1"], { ports: [{ servicePort: 80, targetPort: 0 }] })
      .workload("a", ["10.0.0.2"], { services: { "ns/web.ns.svc.cluster.local": { ports: [] } } })
      .workload("b", ["10.0.0.3"], { services: serves("web", 8082) });
    for (const random of [0, 0.5, 0.99])
      expect(route(state, "10.96.0.1:80", random)).toMatchObject({ authority: "10.0.0.3:8082" });
  });

  it("passes a passthrough service to the dialed address", () => {
    const state = mesh().service("web", ["10.96.0.1"], {
      loadBalancing: { mode: LoadBalancing_Mode.PASSTHROUGH },
    });
    expect(route(state, "10.96.0.1:80")).toMatchObject({
      kind: "passthrough",
      service: { name: "web" },
    });
  });

  const passthrough = { loadBalancing: { mode: LoadBalancing_Mode.PASSTHROUGH } };
  const waypoint = {
    destination: { case: "address" as const, value: { address: bytes("10.0.0.8") } },
    hboneMtlsPort: 15_008,
  };

  it("passes a passthrough service through though a workload in the mesh has that address", () => {
    const state = mesh()
      .workload("a", ["10.0.0.2"], { services: serves("web") })
      .service("web", ["10.0.0.2"], passthrough);
    expect(route(state, "10.0.0.2:80")).toMatchObject({ kind: "passthrough" });
  });

  it("sends a passthrough service to its waypoint, unless a workload has that address", () => {
    const state = mesh()
      .workload("wp", ["10.0.0.8"])
      .workload("a", ["10.0.0.2"])
      .service("web", ["10.96.0.1", "10.0.0.2"], { ...passthrough, waypoint });
    expect(route(state, "10.96.0.1:80")).toMatchObject({ kind: "hbone", viaWaypoint: true });
    expect(route(state, "10.0.0.2:80")).toMatchObject({ kind: "passthrough" });
  });

  it("reaches an unhealthy workload by its own address", () => {
    const state = mesh().workload("a", ["10.0.0.2"], { status: WorkloadStatus.UNHEALTHY });
    expect(route(state, "10.0.0.2:80")).toMatchObject({ kind: "hbone" });
  });

  it("treats a host-network pod's address as the node's own, but reaches it through a service", () => {
    const state = mesh()
      .service("web", ["10.96.0.1"])
      .workload("a", ["10.0.0.9"], {
        networkMode: NetworkMode.HOST_NETWORK,
        services: serves("web"),
      });
    expect(route(state, "10.0.0.9:80")).toEqual({ kind: "passthrough" });
    expect(route(state, "10.96.0.1:80")).toMatchObject({ authority: "10.0.0.9:8080" });
  });

  it.each([
    [IPFamilies.AUTOMATIC, "10.96.0.1:80", "10.0.0.2:8080"],
    [IPFamilies.AUTOMATIC, "[fd96::1]:80", "[fd00::2]:8080"],
    [IPFamilies.IPV6_ONLY, "10.96.0.1:80", "[fd00::2]:8080"],
    [IPFamilies.IPV4_ONLY, "[fd96::1]:80", "10.0.0.2:8080"],
    [IPFamilies.DUAL, "[fd96::1]:80", "[fd00::2]:8080"],
  ])(
    "follows the dialed family as far as the service allows (%s, %s)",
    (ipFamilies, to, authority) => {
      const state = mesh()
        .service("web", ["10.96.0.1", "fd96::1"], { ipFamilies })
        .workload("a", ["10.0.0.2", "fd00::2"], { services: serves("web") });
      expect(route(state, to)).toMatchObject({ authority });
    },
  );
});

describe("waypoints and networks", () => {
  const gateway = (ip: string) => ({
    destination: { case: "address" as const, value: { address: bytes(ip) } },
    hboneMtlsPort: 15_008,
  });
  const named = (hostname: string) => ({
    destination: { case: "hostname" as const, value: { namespace: "ns", hostname } },
    hboneMtlsPort: 15_008,
  });

  it("keeps the dialed VIP as authority towards a service's waypoint", () => {
    const state = mesh()
      .workload("wp", ["10.0.0.8"])
      .service("web", ["10.96.0.1"], { waypoint: gateway("10.0.0.8") });
    expect(route(state, "10.96.0.1:80")).toMatchObject({
      kind: "hbone",
      viaWaypoint: true,
      nextHop: { ip: "10.0.0.8", port: 15_008 },
      authority: "10.96.0.1:80",
      allowedIdentities: [identity("wp")],
    });
  });

  it("keeps the pod's address as authority towards a workload's waypoint", () => {
    const state = mesh()
      .workload("wp", ["10.0.0.8"])
      .workload("a", ["10.0.0.2"], { waypoint: gateway("10.0.0.8") });
    expect(route(state, "10.0.0.2:9000")).toMatchObject({
      viaWaypoint: true,
      authority: "10.0.0.2:9000",
    });
  });

  it.each([
    ["address", gateway("10.0.0.1"), false],
    ["hostname", named("client.example"), false],
    ["service", named("web.ns.svc.cluster.local"), true],
  ])("does not send a waypoint's own calls back to it, known by %s", (_, waypoint, asService) => {
    const state = new TestMesh()
      .workload("client", ["10.0.0.1"], { hostname: "client.example", services: serves("web") })
      .workload("a", ["10.0.0.2"], { waypoint });
    if (asService) state.service("web", ["10.96.0.1"]);
    expect(route(state, "10.0.0.2:9000")).toMatchObject({ viaWaypoint: false });
  });

  it("knows no waypoint of the source, and none of an endpoint that a service leads to", () => {
    const state = new TestMesh()
      .workload("wp", ["10.0.0.8"])
      .workload("client", ["10.0.0.1"], { waypoint: gateway("10.0.0.8") })
      .workload("a", ["10.0.0.2"], { waypoint: gateway("10.0.0.8"), services: serves("web") })
      .workload("b", ["10.0.0.3"])
      .service("web", ["10.96.0.1"]);
    expect(route(state, "10.0.0.3:80")).toMatchObject({ nextHop: { ip: "10.0.0.3" } });
    expect(route(state, "10.96.0.1:80")).toMatchObject({ nextHop: { ip: "10.0.0.2" } });
  });

  it("tunnels to a workload's waypoint even when it is not marked as one that speaks HBONE", () => {
    const state = mesh()
      .workload("wp", ["10.0.0.8"], { tunnelProtocol: TunnelProtocol.NONE })
      .workload("a", ["10.0.0.2"], { waypoint: gateway("10.0.0.8") });
    expect(route(state, "10.0.0.2:80")).toMatchObject({ kind: "hbone", viaWaypoint: true });
  });

  it("reaches a waypoint of another network by two tunnels, the inner one to the waypoint", () => {
    const state = mesh()
      .workload("gw", ["10.0.0.8"])
      .service("gate", ["10.96.0.9"], {
        ports: [{ servicePort: 15_008, targetPort: 15_008 }],
        subjectAltNames: [identity("gate")],
      })
      .workload("remote-gate", [], {
        network: "n2",
        networkGateway: gateway("10.0.0.8"),
        services: {
          "ns/gate.ns.svc.cluster.local": { ports: [{ servicePort: 15_008, targetPort: 15_008 }] },
        },
      })
      .service("web", ["10.96.0.1"], {
        subjectAltNames: [identity("web")],
        waypoint: named("gate.ns.svc.cluster.local"),
      });
    expect(route(state, "10.96.0.1:80")).toMatchObject({
      kind: "double-hbone",
      authority: "web.ns.svc.cluster.local:80",
      innerIdentities: [identity("gate")],
      outer: { nextHop: { ip: "10.0.0.8" }, allowedIdentities: [identity("gw")] },
    });
  });

  it("fails rather than going around a waypoint that is not known", () => {
    const state = mesh()
      .service("web", ["10.96.0.1"], { waypoint: gateway("10.0.0.8") })
      .workload("a", ["10.0.0.2"], { services: serves("web") });
    expect(route(state, "10.96.0.1:80")).toMatchObject({
      kind: "refused",
      code: "UNKNOWN_WAYPOINT",
    });
  });

  it.each([
    [100, 0, 0.99, "10.0.0.7"],
    [0, 100, 0, "10.0.0.8"],
    [75, 25, 0.74, "10.0.0.7"],
    [75, 25, 0.76, "10.0.0.8"],
    [0, 0, 0.5, "10.0.0.9"],
  ])("weighs waypoints %i to %i", (first, second, random, ip) => {
    const weighted = [
      { destination: gateway("10.0.0.7"), weight: first },
      { destination: gateway("10.0.0.8"), weight: second },
    ];
    const state = mesh()
      .workload("w7", ["10.0.0.7"])
      .workload("w8", ["10.0.0.8"])
      .workload("w9", ["10.0.0.9"])
      .service("web", ["10.96.0.1"], {
        waypoint: gateway("10.0.0.9"),
        weightedWaypoints: weighted,
      });
    expect(route(state, "10.96.0.1:80", random)).toMatchObject({ nextHop: { ip } });
  });

  it("looks up a workload that has only a hostname, and then goes as to any other", () => {
    const state = mesh()
      .service("web", ["10.96.0.1"])
      .workload("a", [], { hostname: "a.example", services: serves("web") })
      .workload("client", ["10.0.0.1"]);
    const resolved = route(state, "10.96.0.1:80");
    expect(resolved).toMatchObject({ kind: "named", hostname: "a.example", family: 4 });
    if (resolved.kind !== "named") return expect.unreachable();
    expect(resolved.at(parseIp("192.0.2.7")!)).toMatchObject({
      kind: "hbone",
      nextHop: { ip: "192.0.2.7", port: 15_008 },
      authority: "192.0.2.7:8080",
      allowedIdentities: [identity("a")],
    });
  });

  it("needs a gateway to another network", () => {
    const state = mesh()
      .service("web", ["10.96.0.1"])
      .workload("far", ["10.1.0.2"], { network: "n2", services: serves("web") });
    expect(route(state, "10.96.0.1:80")).toMatchObject({
      kind: "refused",
      code: "UNKNOWN_GATEWAY",
    });
  });

  it("uses hostname and port on both tunnels across networks", () => {
    const state = mesh()
      .workload("gw", ["10.0.0.8"])
      .service("web", ["10.96.0.1"], { subjectAltNames: [identity("far")] })
      .workload("far", [], {
        network: "n2",
        networkGateway: gateway("10.0.0.8"),
        services: serves("web"),
      });
    expect(route(state, "10.96.0.1:80")).toMatchObject({
      kind: "double-hbone",
      authority: "web.ns.svc.cluster.local:80",
      innerIdentities: [identity("far")],
      outer: { nextHop: { ip: "10.0.0.8" } },
    });
  });
});

describe("locality", () => {
  const at = (region: string, zone: string) => ({ locality: { region, zone } });
  const build = (mode: LoadBalancing_Mode, routingPreference: LoadBalancing_Scope[]) =>
    new TestMesh()
      .workload("client", ["10.0.0.1"], at("r1", "z1"))
      .service("web", ["10.96.0.1"], { loadBalancing: { mode, routingPreference } });
  const picks = (state: TestMesh) =>
    new Set(
      [0, 0.3, 0.6, 0.99].map((random) => {
        const r = route(state, "10.96.0.1:80", random);
        return r.kind === "hbone" ? r.destination.name : r.kind;
      }),
    );

  it("prefers the most scopes in failover", () => {
    const state = build(LoadBalancing_Mode.FAILOVER, [REGION, ZONE])
      .workload("far", ["10.0.0.2"], { services: serves("web"), ...at("r2", "z1") })
      .workload("region", ["10.0.0.3"], { services: serves("web"), ...at("r1", "z9") });
    expect(picks(state)).toEqual(new Set(["region"]));
    expect(
      picks(state.workload("zone", ["10.0.0.4"], { services: serves("web"), ...at("r1", "z1") })),
    ).toEqual(new Set(["zone"]));
  });

  it("takes only full matches in strict", () => {
    const state = build(LoadBalancing_Mode.STRICT, [NODE]).workload("far", ["10.0.0.2"], {
      node: "node-2",
      services: serves("web"),
    });
    expect(picks(state)).toEqual(new Set(["refused"]));
    expect(picks(state.workload("near", ["10.0.0.3"], { services: serves("web") }))).toEqual(
      new Set(["near"]),
    );
  });

  it("prefers any endpoint of its own network to every remote one", () => {
    const state = build(LoadBalancing_Mode.FAILOVER, [NETWORK, REGION, ZONE])
      .workload("remote", ["10.1.0.2"], {
        network: "n2",
        services: serves("web"),
        ...at("r1", "z1"),
      })
      .workload("local", ["10.0.0.3"], { services: serves("web"), ...at("r9", "z9") });
    expect(picks(state)).toEqual(new Set(["local"]));
  });

  it("weighs by capacity, and never picks an explicit zero", () => {
    const state = build(LoadBalancing_Mode.UNSPECIFIED_MODE, [])
      .workload("zero", ["10.0.0.2"], { services: serves("web"), capacity: 0 })
      .workload("one", ["10.0.0.3"], { services: serves("web") });
    expect(picks(state)).toEqual(new Set(["one"]));
  });
});
