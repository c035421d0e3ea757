import { describe, expect, it } from "vitest";
import { Action, Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import { TunnelProtocol } from "@ambit/api/gen/istio/workload_pb.ts";
import { bytes, serves, TestMesh } from "../state/testing-mesh.ts";
import { testContext } from "../testing/test-context.ts";
import { explain } from "./explain.ts";

const waypoint = {
  waypoint: {
    destination: { case: "address" as const, value: { address: bytes("10.96.0.9") } },
    hboneMtlsPort: 80,
  },
};

function mesh(): TestMesh {
  return new TestMesh()
    .workload("client", ["10.0.0.1"])
    .workload("plain", ["10.0.0.2"], { tunnelProtocol: TunnelProtocol.NONE })
    .workload("near", ["10.0.0.3"], { services: serves("web") })
    .workload("far", ["10.0.0.4"], { node: "node-2" })
    .workload("behind", ["10.0.0.5"], waypoint)
    .workload("gate", ["10.0.0.9"], { services: serves("gate", 15_008) })
    .workload("remote", ["10.9.0.1"], {
      network: "n2",
      services: serves("distant"),
      networkGateway: {
        destination: { case: "address", value: { address: bytes("10.96.0.9") } },
        hboneMtlsPort: 80,
      },
    })
    .service("web", ["10.96.0.1"])
    .service("empty", ["10.96.0.2"])
    .service("gate", ["10.96.0.9"])
    .service("distant", ["10.96.0.3"]);
}

/** near admits only callers of namespace ns; far denies port 80 to everybody. */
function policies(of: TestMesh): TestMesh {
  return of
    .policy("admit", {
      scope: Scope.NAMESPACE,
      rules: [{ clauses: [{ matches: [{ namespaces: [exact("ns")] }] }] }],
    })
    .policy("closed", {
      scope: Scope.NAMESPACE,
      action: Action.DENY,
      rules: [{ clauses: [{ matches: [{ destinationPorts: [80] }] }] }],
    });
}

const exact = (value: string) => ({ matchType: { case: "exact" as const, value } });

function ask(source: string, destination: string, from = mesh()) {
  return explain(testContext({ state: from.state }), source, destination);
}

describe("a connection is explained", () => {
  it.each([
    ["on one node", "ns/client", "10.0.0.3:8080", "local", "allowed"],
    ["to another node", "ns/client", "10.0.0.4:8080", "hbone", "allowed"],
    ["to a service", "ns/client", "10.96.0.1:80", "local", "allowed"],
    ["to a pod by its name", "ns/client", "ns/far:8080", "hbone", "allowed"],
    ["to a service by its name", "ns/client", "web:80", "local", "allowed"],
    ["to a pod outside the mesh", "ns/client", "10.0.0.2:8080", "tcp", "allowed"],
    ["from a pod outside the mesh", "ns/plain", "10.0.0.3:8080", "tcp", "allowed"],
    ["to an address that nobody has", "ns/client", "192.0.2.1:443", "passthrough", "allowed"],
    ["through a waypoint", "ns/client", "10.0.0.5:8080", "hbone", "allowed"],
    ["to another network", "ns/client", "10.96.0.3:80", "double-hbone", "allowed"],
    ["to a service without endpoints", "ns/client", "10.96.0.2:80", "none", "unreachable"],
    ["to a port that the service lacks", "ns/client", "10.96.0.1:81", "none", "unreachable"],
  ])("%s", (_, source, destination, path, verdict) => {
    expect(ask(source, destination)).toMatchObject({ path, verdict });
  });

  it("step by step, in the order of the proxy's own questions", () => {
    expect(ask("ns/client", "web:80").steps).toEqual([
      { question: "what does web resolve to", answer: "10.96.0.1" },
      { question: "what is 10.96.0.1:80", answer: "service ns/web.ns.svc.cluster.local" },
      { question: "which endpoint", answer: "ns/near port 8080, one of 1" },
      { question: "how does it get there", answer: "in an mTLS tunnel (HBONE)" },
      {
        question: "which path do the bytes take",
        answer: "relayed inside this node's ztunnel, which holds both identities",
      },
    ]);
  });

  it("with the reason when nothing takes it, and no policy asked", () => {
    expect(ask("ns/client", "10.96.0.2:80")).toMatchObject({
      reason: expect.stringContaining("has no ready endpoint"),
      code: "NO_UPSTREAM",
      policies: [],
    });
  });

  it("as decided elsewhere when a waypoint is in between", () => {
    expect(ask("ns/client", "10.0.0.5:8080", policies(mesh()))).toMatchObject({
      reason: "decided at the next hop",
      policies: [],
    });
  });
});

describe("policies are told one by one", () => {
  it("with the one that allowed", () => {
    const explanation = ask("ns/client", "10.0.0.3:8080", policies(mesh()));
    expect(explanation).toMatchObject({ verdict: "allowed", decidedBy: "ns/admit" });
    expect(explanation.policies).toEqual([
      { policy: "ns/admit", action: "allow", scope: "namespace", dryRun: false, matched: true },
      {
        policy: "ns/closed",
        action: "deny",
        scope: "namespace",
        dryRun: false,
        matched: false,
        miss: "rule 1: destinationPorts must be one of 80",
      },
    ]);
  });

  it("with the one that denied", () => {
    expect(ask("ns/client", "10.0.0.3:80", policies(mesh()))).toMatchObject({
      verdict: "denied",
      decidedBy: "ns/closed",
      reason: "policy rejection: explicitly denied by: ns/closed",
      code: "POLICY_DENIED",
    });
  });

  it("with the condition that the nearest miss failed on", () => {
    const explanation = ask("ns/plain", "10.0.0.3:8080", policies(mesh()));
    expect(explanation).toMatchObject({
      verdict: "denied",
      reason: "policy rejection: allow policies exist, but none allowed",
    });
    expect(explanation.policies[0]?.miss).toBe("rule 1: namespaces must be one of ns");
  });
});

describe("what cannot be explained is said in one sentence", () => {
  it.each([
    ["ns/ghost", "10.0.0.3:80", "no workload ns/ghost is known here"],
    ["ns/client", "web", '"web" is not host:port'],
    ["ns/client", "ghost.example:80", 'the mesh knows no address for "ghost.example"'],
  ])("%s to %s", (source, destination, sentence) => {
    expect(() => ask(source, destination)).toThrow(sentence);
  });
});
