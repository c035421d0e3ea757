import { beforeEach, describe, expect, it } from "vitest";
import { Action, Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { workloadIdentity } from "../state/workload.ts";
import { DRY_RUN_SERIES_MAX, PolicyTelemetry } from "../telemetry/policy-telemetry.ts";
import { TestMesh } from "../state/testing-mesh.ts";
import { type TestContext, testContext } from "../testing/test-context.ts";
import { authorize } from "./authorize.ts";

// Policies as the control plane sends them, asked about connections: what decides, what is only tried
// out, and what is told of both.

let mesh: TestMesh;
let context: TestContext;

beforeEach(() => {
  mesh = new TestMesh()
    .workload("web", ["10.0.0.1"])
    .workload("good", ["10.0.0.2"])
    .workload("bad", ["10.0.0.3"]);
  context = testContext({ state: mesh.state });
});

const from = (...accounts: string[]) => [
  {
    clauses: [
      {
        matches: [
          {
            principals: accounts.map((account) => ({
              matchType: { case: "exact" as const, value: `cluster.local/ns/ns/sa/${account}` },
            })),
          },
        ],
      },
    ],
  },
];

function ask(account: string, target = context): string {
  try {
    authorize(target, mesh.get("web"), {
      sourceIp: "10.0.0.9" as Ip,
      sourceIdentity: workloadIdentity(mesh.get(account)),
      destinationIp: "10.0.0.1" as Ip,
      destinationPort: 8080,
    });
    return "allowed";
  } catch (error) {
    return (error as Error).message;
  }
}

const told = () =>
  context
    .lines()
    .filter(({ scope }) => scope === "policy")
    .map(({ level, message, policy }) => [level, message, ...(policy ? [policy] : [])].join(" "));
const counted = () =>
  context.policyTelemetry
    .collect()
    .flatMap(({ values }) =>
      values.map(({ labels, value }) => [labels["policy"], labels["verdict"], value]),
    );

describe("dry run beside policies that are enforced", () => {
  beforeEach(() =>
    mesh
      .policy("deny", { action: Action.DENY, scope: Scope.NAMESPACE, rules: from("bad") })
      .policy("dry-deny", {
        action: Action.DENY,
        scope: Scope.NAMESPACE,
        dryRun: true,
        rules: from("good", "bad"),
      })
      .policy("allow", { scope: Scope.NAMESPACE, rules: from("good", "bad") })
      .policy("dry-allow", { scope: Scope.NAMESPACE, dryRun: true, rules: from("good") }),
  );

  it("changes nothing, and is told and counted", () => {
    expect(ask("good")).toBe("allowed");
    expect(told()).toEqual([
      "debug dry-run: deny policy match ns/dry-deny",
      "debug dry-run: allow policy match ns/dry-allow",
      "debug allow policy match ns/allow",
    ]);
    expect(counted()).toEqual([
      ["ns/dry-deny", "deny", 1],
      ["ns/dry-allow", "allow", 1],
    ]);
  });

  it("is told also of what is denied", () => {
    expect(ask("bad")).toBe("policy rejection: explicitly denied by: ns/deny");
    expect(told()).toEqual([
      "debug dry-run: deny policy match ns/dry-deny",
      "debug deny policy match ns/deny",
    ]);
  });
});

it("dry-run ALLOW policies alone deny nothing, and it is told that they would", () => {
  mesh.policy("dry-allow", { scope: Scope.NAMESPACE, dryRun: true, rules: from("good") });
  expect(ask("bad")).toBe("allowed");
  expect(told()).toEqual([
    "debug dry-run: no allow policies match",
    "debug no allow policies, allow",
  ]);
  expect(counted()).toEqual([["none", "deny", 1]]);
});

it("decisions are told at info when that is asked for", () => {
  mesh.policy("allow", { scope: Scope.NAMESPACE, rules: from("good") });
  context = testContext({ state: mesh.state, config: { policyInfoLogging: true } });
  ask("good");
  ask("bad");
  expect(told()).toEqual(["info allow policy match ns/allow", "info no allow policies matched"]);
});

describe("a policy of scope workload", () => {
  const deny = { action: Action.DENY, scope: Scope.WORKLOAD_SELECTOR, rules: from("bad") };

  it("applies to the workloads that name it, and to no other", () => {
    mesh.policy("selected", deny);
    expect(ask("bad")).toBe("allowed");
    mesh.workload("web", ["10.0.0.1"], { authorizationPolicies: ["ns/selected"] });
    expect(ask("bad")).toContain("denied by: ns/selected");
  });

  it("as istiod sends it for STRICT mTLS refuses who has no identity", () => {
    mesh
      .policy("istio_converted_static_strict", {
        action: Action.DENY,
        scope: Scope.WORKLOAD_SELECTOR,
        rules: [
          {
            clauses: [
              { matches: [{ notPrincipals: [{ matchType: { case: "presence", value: {} } }] }] },
            ],
          },
        ],
      })
      .workload("web", ["10.0.0.1"], {
        authorizationPolicies: ["ns/istio_converted_static_strict"],
      });
    expect(ask("good")).toBe("allowed");
    const plain = {
      sourceIp: "10.0.0.9" as Ip,
      destinationIp: "10.0.0.1" as Ip,
      destinationPort: 80,
    };
    expect(() => authorize(context, mesh.get("web"), plain)).toThrow(
      "istio_converted_static_strict",
    );
  });

  it("that is named and not there is skipped, with one warning", () => {
    mesh.workload("web", ["10.0.0.1"], { authorizationPolicies: ["ns/later", "ns/never"] });
    expect([ask("bad"), ask("bad")]).toEqual(["allowed", "allowed"]);
    const warnings = () => told().filter((line) => line.startsWith("warn"));
    expect(warnings()).toEqual([
      "warn skipping unknown policy ns/later",
      "warn skipping unknown policy ns/never",
    ]);
    mesh.policy("later", deny);
    expect(ask("bad")).toContain("denied by: ns/later");
    expect(warnings()).toHaveLength(2);
    mesh.removePolicy("later");
    expect(ask("bad")).toBe("allowed");
    expect(warnings()).toHaveLength(3);
  });

  it("that becomes one of a namespace applies to all of it, and the other way round", () => {
    mesh.policy("moving", deny);
    expect(ask("bad")).toBe("allowed");
    mesh.policy("moving", { ...deny, scope: Scope.NAMESPACE });
    expect(ask("bad")).toContain("denied by: ns/moving");
    mesh.policy("moving", deny);
    expect(ask("bad")).toBe("allowed");
  });
});

it("dry-run counts are bounded: further policies are counted together", () => {
  const decision = (policy: string) => ({
    allowed: true,
    reason: "no-allow-policies" as const,
    dryRunMatches: [{ policy, action: "deny" as const }],
    dryRunMisses: false,
  });
  const telemetry = new PolicyTelemetry(context.log, false);
  for (let i = 0; i <= DRY_RUN_SERIES_MAX + 1; i++) {
    telemetry.decided(mesh.get("web"), decision(`ns/p${i}`));
  }
  const values = telemetry.collect()[0]!.values;
  expect(values).toHaveLength(DRY_RUN_SERIES_MAX + 1);
  expect(values.at(-1)).toEqual({ labels: { policy: "others", verdict: "deny" }, value: 2 });
});
