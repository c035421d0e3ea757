import { describe, expect, it } from "vitest";
import { Action, Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import { LoadBalancing_Mode, TunnelProtocol } from "@ambit/api/gen/istio/workload_pb.ts";
import { bytes, serves, TestMesh } from "../state/testing-mesh.ts";
import { DirectTestLab, ip } from "../testing/direct-lab.ts";

const waypoint = {
  waypoint: {
    destination: { case: "address" as const, value: { address: bytes("10.96.0.9") } },
    hboneMtlsPort: 15_008,
  },
};
const WEB = { ip: ip("10.96.0.1"), port: 80 };

function mesh(): TestMesh {
  return new TestMesh()
    .service("web", ["10.96.0.1"])
    .workload("client", ["10.0.0.1"])
    .workload("one", ["10.0.0.2"], { services: serves("web") });
}

function decide(of: TestMesh, called = WEB, steered = ["client", "one"]) {
  const lab = new DirectTestLab(
    of,
    steered.filter((name) => of.get(name) !== undefined),
  );
  return lab.context.direct.decide(lab.context, of.get("client"), called);
}

describe("a call goes directly", () => {
  it("to a pod's own address", () => {
    const to = { ip: ip("10.0.0.2"), port: 9 };
    expect(decide(mesh(), to)).toMatchObject({ direct: true, targets: [{ to, weight: 1 }] });
  });

  it("to a service's only endpoint, at its own port", () => {
    const to = { ip: ip("10.0.0.2"), port: 8080 };
    expect(decide(mesh())).toMatchObject({ direct: true, targets: [{ to }] });
  });

  it("to each of several endpoints by its weight, and never to one that has none", () => {
    const several = mesh()
      .workload("two", ["10.0.0.3"], { services: serves("web"), capacity: 3 })
      .workload("none", ["10.0.0.4"], { services: serves("web"), capacity: 0 });
    const steered = ["client", "one", "two", "none"];
    expect(decide(several, WEB, steered)).toMatchObject({
      targets: [{ weight: 1 }, { weight: 3 }],
    });
  });
});

describe("a call goes through ztunnel", () => {
  const web = (changes: Parameters<TestMesh["service"]>[2]) =>
    mesh().service("web", ["10.96.0.1"], changes);
  const one = (changes: Parameters<TestMesh["workload"]>[2]) =>
    mesh().workload("one", ["10.0.0.2"], { services: serves("web"), ...changes });
  const deny = (changes: Parameters<TestMesh["policy"]>[1]) =>
    mesh().policy("deny", { scope: Scope.NAMESPACE, action: Action.DENY, ...changes });

  it.each([
    ["the service has a waypoint", web(waypoint), "web.ns.svc.cluster.local has a waypoint"],
    ["the endpoint has a waypoint", one(waypoint), "ns/one has a waypoint"],
    [
      "the service passes through",
      web({ loadBalancing: { mode: LoadBalancing_Mode.PASSTHROUGH } }),
      "passes through",
    ],
    [
      "the endpoint is not in the mesh",
      one({ tunnelProtocol: TunnelProtocol.NONE }),
      "in the mesh",
    ],
    ["an endpoint is on another node", one({ node: "node-2" }), "steered"],
    [
      "one of two endpoints is on another node",
      mesh().workload("two", ["10.0.0.3"], { services: serves("web"), node: "node-2" }),
      "ns/two is not a pod that is steered here",
    ],
    ["the service has no endpoint", mesh().remove("c//Pod/ns/one"), "no endpoint"],
    [
      "a policy denies the port",
      deny({ rules: [{ clauses: [{ matches: [{ destinationPorts: [8080] }] }] }] }),
      "ns/deny",
    ],
    [
      "a policy denies the source's address",
      deny({
        rules: [
          { clauses: [{ matches: [{ sourceIps: [{ address: bytes("10.0.0.1"), length: 32 }] }] }] },
        ],
      }),
      "ns/deny",
    ],
    [
      "the endpoint's application is behind a header",
      one({ applicationTunnel: { port: 9000 } }),
      "do not both want",
    ],
  ])("when %s", (_, of, why) => {
    const decision = decide(of);
    expect(decision).toMatchObject({ direct: false });
    expect(!decision.direct && decision.why).toContain(why);
  });

  it("when a workload is called by its own address but its service has a waypoint", () => {
    const decision = decide(web(waypoint), { ip: ip("10.0.0.2"), port: 8080 });
    expect(decision).toMatchObject({ why: expect.stringContaining("has a waypoint") as string });
  });

  it.each([
    ["when it is ztunnel's own port", { ip: ip("10.0.0.2"), port: 15_008 }, "ztunnel's own"],
    ["when the mesh does not know the address", { ip: ip("10.9.9.9"), port: 1 }, "does not know"],
    ["when it is the pod itself", { ip: ip("10.0.0.1"), port: 1 }, "calls itself"],
  ])("%s", (_, called, why) => {
    expect(decide(mesh(), called)).toMatchObject({
      why: expect.stringContaining(why) as string,
    });
  });

  it("when there are more endpoints than a verdict holds", () => {
    const many = mesh();
    const names = ["client", "one"];
    for (let i = 0; i < 8; i++) {
      many.workload(`more-${i}`, [`10.0.1.${i}`], { services: serves("web") });
      names.push(`more-${i}`);
    }
    expect(decide(many, WEB, names)).toMatchObject({ why: "there are 9 endpoints, more than 8" });
    many.remove("c//Pod/ns/more-0");
    expect(
      decide(
        many,
        WEB,
        names.filter((name) => name !== "more-0"),
      ),
    ).toMatchObject({
      direct: true,
    });
  });

  it.each(["client", "one"])("when %s has no valid certificate", (name) => {
    const of = mesh();
    const lab = new DirectTestLab(of, ["client", "one"]);
    lab.certify(name, false);
    expect(lab.context.direct.decide(lab.context, of.get("client"), WEB)).toMatchObject({
      why: `there is no valid certificate of spiffe://cluster.local/ns/ns/sa/${name}`,
    });
  });

  it.each(["local", "hbone"] as const)("when the mesh wants %s", (sameNode) => {
    const of = mesh();
    const lab = new DirectTestLab(of, ["client", "one"], { sameNode });
    expect(lab.context.direct.decide(lab.context, of.get("client"), WEB)).toMatchObject({
      why: expect.stringContaining("do not both want") as string,
    });
  });

  it("when a policy forbids any of the addresses that the source may use", () => {
    const of = deny({
      rules: [
        { clauses: [{ matches: [{ sourceIps: [{ address: bytes("10.0.0.99"), length: 32 }] }] }] },
      ],
    });
    const lab = new DirectTestLab(of, ["client", "one"]);
    const ask = () => lab.context.direct.decide(lab.context, of.get("client"), WEB).direct;
    expect(ask()).toBe(true);
    lab.kernel.ips.set(0, [ip("10.0.0.1"), ip("10.0.0.99")]);
    expect(ask()).toBe(false);
    lab.kernel.ips.set(0, []);
    expect(ask()).toBe(false);
  });
});
