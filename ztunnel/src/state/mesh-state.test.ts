import { describe, expect, it } from "vitest";
import { Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import { Service_Visibility, TunnelProtocol } from "@ambit/api/gen/istio/workload_pb.ts";
import { parseIp } from "@ambit/common/net/ip.ts";
import { bytes, serves, TestMesh, workloadResource } from "./testing-mesh.ts";

const at = (ip: string, network = "") => ({ network, ip: parseIp(ip)! });
const endpoints = (mesh: TestMesh, name = "web") => [
  ...(mesh.state.services.byKey(`ns/${name}.ns.svc.cluster.local`)?.endpoints.keys() ?? []),
];

describe("services and their endpoints", () => {
  it("join in either order", () => {
    const first = new TestMesh()
      .service("web", ["10.96.0.1"])
      .workload("a", ["10.0.0.1"], { services: serves("web") });
    const second = new TestMesh()
      .workload("a", ["10.0.0.1"], { services: serves("web") })
      .service("web", ["10.96.0.1"]);
    expect(endpoints(first)).toEqual(["c//Pod/ns/a"]);
    expect(endpoints(second)).toEqual(["c//Pod/ns/a"]);
  });

  it("lose an endpoint that leaves, turns away or becomes unhealthy", () => {
    const mesh = new TestMesh()
      .service("web", ["10.96.0.1"])
      .workload("a", ["10.0.0.1"], { services: serves("web") })
      .workload("b", ["10.0.0.2"], { services: serves("web") });
    mesh.workload("a", ["10.0.0.1"], {});
    expect(endpoints(mesh)).toEqual(["c//Pod/ns/b"]);
    mesh.workload("b", ["10.0.0.2"], { services: serves("web"), status: 1 });
    expect(endpoints(mesh)).toEqual([]);
    mesh.workload("a", ["10.0.0.1"], { services: serves("web") }).remove("c//Pod/ns/a");
    expect(endpoints(mesh)).toEqual([]);
  });

  it("get their endpoints back when they return", () => {
    const mesh = new TestMesh()
      .service("web", ["10.96.0.1"])
      .workload("a", ["10.0.0.1"], { services: serves("web") });
    mesh.remove("ns/web.ns.svc.cluster.local").service("web", ["10.96.0.2"]);
    expect(endpoints(mesh)).toEqual(["c//Pod/ns/a"]);
    expect(mesh.state.services.byAddress(at("10.96.0.1"), "ns")).toBeUndefined();
  });

  it("do not take in what was unhealthy while they were not there", () => {
    const mesh = new TestMesh()
      .workload("a", ["10.0.0.1"], { services: serves("web"), status: 1 })
      .workload("b", ["10.0.0.2"], { services: serves("web") })
      .service("web", ["10.96.0.1"]);
    expect(endpoints(mesh)).toEqual(["c//Pod/ns/b"]);
    mesh.service("web", ["10.96.0.1"], { loadBalancing: { healthPolicy: 1 } });
    expect(endpoints(mesh)).toEqual(["c//Pod/ns/b"]);
    mesh.workload("a", ["10.0.0.1"], { services: serves("web"), status: 1 });
    expect(endpoints(mesh).toSorted()).toEqual(["c//Pod/ns/a", "c//Pod/ns/b"]);
  });

  it("are removed before they are added again in one update", () => {
    const mesh = new TestMesh().service("web", ["10.96.0.1"]);
    const again = workloadResource("a", ["10.0.0.1"], { services: serves("web") });
    mesh.state.applyAddresses({ upserts: [again], removed: [] });
    mesh.state.applyAddresses({ upserts: [again], removed: [again.name] });
    expect(endpoints(mesh)).toEqual(["c//Pod/ns/a"]);
  });

  it("clean up what is staged for a service that never comes", () => {
    const mesh = new TestMesh().workload("a", ["10.0.0.1"], { services: serves("web") });
    expect([...mesh.state.services.stagedKeys]).toHaveLength(1);
    mesh.remove("c//Pod/ns/a");
    expect([...mesh.state.services.stagedKeys]).toEqual([]);
  });
});

describe("looking up addresses", () => {
  const found = (mesh: TestMesh, ip: string, namespace = "ns", network = "") =>
    mesh.state.services.byAddress(at(ip, network), namespace)?.service.name;

  it("prefers a Pod, then HBONE, among workloads that share an address", () => {
    const mesh = new TestMesh()
      .workload("entry", ["10.0.0.1"], {
        uid: "c/WorkloadEntry/ns/entry",
        tunnelProtocol: TunnelProtocol.NONE,
      })
      .workload("pod", ["10.0.0.1"]);
    expect(mesh.state.workloadByAddress(at("10.0.0.1"))?.name).toBe("pod");
    expect(mesh.remove("c//Pod/ns/pod").state.workloadByAddress(at("10.0.0.1"))?.name).toBe(
      "entry",
    );
  });

  it("keeps networks apart", () => {
    const mesh = new TestMesh().workload("a", ["10.0.0.1"], { network: "n1" });
    expect(mesh.state.workloadByAddress(at("10.0.0.1"))).toBeUndefined();
    expect(mesh.state.workloadByAddress(at("10.0.0.1", "n1"))?.name).toBe("a");
  });

  it("ranks one VIP of several namespaces: the client's, canonical, the first", () => {
    const mesh = new TestMesh()
      .service("first", ["10.96.0.1"], { namespace: "a" })
      .service("canonical", ["10.96.0.1"], { namespace: "b", canonical: true })
      .service("mine", ["10.96.0.1"]);
    expect([
      found(mesh, "10.96.0.1", "ns"),
      found(mesh, "10.96.0.1", "zz"),
      found(mesh, "10.96.0.1", "a"),
    ]).toEqual(["mine", "canonical", "first"]);
  });

  it("hides private services from other namespaces, and then tries CIDRs", () => {
    const mesh = new TestMesh()
      .service("private", ["10.96.0.1"], { visibility: Service_Visibility.NAMESPACE })
      .service("wide", [], { addresses: [{ address: bytes("10.96.0.0"), length: 16 }] });
    expect([found(mesh, "10.96.0.1", "ns"), found(mesh, "10.96.0.1", "other")]).toEqual([
      "private",
      "wide",
    ]);
  });

  it("hides private services by hostname too", () => {
    const mesh = new TestMesh()
      .service("web", ["10.96.0.1"], { visibility: Service_Visibility.NAMESPACE })
      .service("web", ["10.96.0.2"], { namespace: "x", hostname: "web.ns.svc.cluster.local" });
    const named = (client: string) =>
      mesh.state.services.byHostname("web.ns.svc.cluster.local", client)?.service.namespace;
    expect([named("ns"), named("other"), named("x")]).toEqual(["ns", "x", "x"]);
  });

  it("keeps the later of two services of one namespace with the same address or hostname", () => {
    const mesh = new TestMesh()
      .service("one", ["10.96.0.1", "10.96.0.2"])
      .service("two", ["10.96.0.1"]);
    expect([found(mesh, "10.96.0.1"), found(mesh, "10.96.0.2")]).toEqual(["two", "one"]);
    mesh.remove("ns/two.ns.svc.cluster.local");
    expect(found(mesh, "10.96.0.1")).toBeUndefined();
  });

  it("keeps blocks of addresses apart by network, and forgets them with their service", () => {
    const wide = (network: string) => ({
      addresses: [{ network, address: bytes("10.0.0.0"), length: 8 }],
    });
    const mesh = new TestMesh().service("wide", [], wide("n1"));
    expect([found(mesh, "10.1.2.3"), found(mesh, "10.1.2.3", "ns", "n1")]).toEqual([
      undefined,
      "wide",
    ]);
    mesh.service("wide", [], wide("n2"));
    expect([found(mesh, "10.1.2.3", "ns", "n1"), found(mesh, "10.1.2.3", "ns", "n2")]).toEqual([
      undefined,
      "wide",
    ]);
    mesh.remove("ns/wide.ns.svc.cluster.local");
    expect(found(mesh, "10.1.2.3", "ns", "n2")).toBeUndefined();
  });

  it("prefers an exact address to a block of the client's own namespace, and keeps families apart", () => {
    const mesh = new TestMesh()
      .service("exact", ["10.1.2.3"], { namespace: "x" })
      .service("block", [], { addresses: [{ address: bytes("10.0.0.0"), length: 8 }] })
      .service("whole", [], {
        addresses: [
          { address: bytes("10.9.9.9"), length: 32 },
          { address: bytes("fd00::9"), length: 128 },
        ],
      });
    expect(
      ["10.1.2.3", "10.1.2.4", "10.9.9.9", "fd00::9", "::ffff:10.9.9.9", "fd00::8"].map((ip) =>
        found(mesh, ip),
      ),
    ).toEqual(["exact", "block", "whole", "whole", "whole", undefined]);
  });

  it("takes the longest prefix, but the client's namespace before specificity", () => {
    const block =
      (name: string, ip: string, length: number, namespace = "x") =>
      (mesh: TestMesh) =>
        mesh.service(name, [], {
          namespace,
          hostname: `${name}.x`,
          addresses: [{ address: bytes(ip), length }],
        });
    const mesh = [
      block("wide", "10.0.0.0", 8),
      block("narrow", "10.1.0.0", 16),
      block("six", "fd00::", 8),
    ].reduce((m, add) => add(m), new TestMesh());
    expect([
      found(mesh, "10.1.2.3"),
      found(mesh, "10.2.0.1"),
      found(mesh, "fd12::1"),
      found(mesh, "11.0.0.1"),
    ]).toEqual(["narrow", "wide", "six", undefined]);
    expect(found(block("mine", "10.0.0.0", 8, "ns")(mesh), "10.1.2.3")).toBe("mine");
  });
});

describe("policies", () => {
  const names = (mesh: TestMesh, workload: string) =>
    mesh.state
      .policiesFor(mesh.get(workload))
      .map(({ name }) => name)
      .toSorted();
  const mesh = () =>
    new TestMesh()
      .workload("a", ["10.0.0.1"], { authorizationPolicies: ["ns/mine", "ns/unknown"] })
      .workload("b", ["10.0.0.2"])
      .workload("c", ["10.0.0.3"], { uid: "c//Pod/ns/c", namespace: "other" });

  it.each([
    [Scope.GLOBAL, [["mine"], ["mine"], ["mine"]]],
    [Scope.NAMESPACE, [["mine"], ["mine"], []]],
    [Scope.WORKLOAD_SELECTOR, [["mine"], [], []]],
  ])("of scope %i apply where their scope says", (scope, expected) => {
    const known = mesh().policy("mine", { scope });
    expect(["a", "b", "c"].map((name) => names(known, name))).toEqual(expected);
  });

  it("change their place with their scope, and leave it when they go", () => {
    const known = mesh().policy("mine", { scope: Scope.GLOBAL });
    expect(names(known, "c")).toEqual(["mine"]);
    known.policy("mine", { scope: Scope.NAMESPACE });
    expect([names(known, "b"), names(known, "c")]).toEqual([["mine"], []]);
    known.policy("mine", { scope: Scope.WORKLOAD_SELECTOR });
    expect([names(known, "a"), names(known, "b")]).toEqual([["mine"], []]);
    known.removePolicy("mine");
    expect(names(known, "a")).toEqual([]);
  });

  it("of namespace scope in another namespace do not apply", () => {
    const known = mesh().policy("theirs", { namespace: "other", scope: Scope.NAMESPACE });
    expect([names(known, "a"), names(known, "c")]).toEqual([[], ["theirs"]]);
  });
});

describe("resources that are malformed", () => {
  it.each([
    [
      "an address of five bytes",
      { addresses: [Uint8Array.of(1, 2, 3, 4, 5)] },
      /address of 5 bytes/,
    ],
    ["a legacy tunnel protocol", { tunnelProtocol: TunnelProtocol.LEGACY_ISTIO_MTLS }, /LEGACY/],
    ["an unknown enum value", { status: 9 as never }, /unknown status 9/],
    ["a service key without slash", { services: { web: { ports: [] } } }, /no slash/],
    ["a waypoint without destination", { waypoint: {} }, /without destination/],
  ])("are rejected: %s", (_, changes, reason) => {
    expect(() => new TestMesh().workload("a", ["10.0.0.1"], changes as never)).toThrow(reason);
  });

  it("do not keep the others of the same update out", () => {
    const mesh = new TestMesh().workload("a", ["10.0.0.1"]);
    const rejected = mesh.state.applyAddresses({
      upserts: [{ name: "bad", value: Uint8Array.of(0xff) }],
      removed: [],
    });
    expect(rejected).toMatchObject([{ name: "bad" }]);
    expect(mesh.get("a").name).toBe("a");
  });
});
