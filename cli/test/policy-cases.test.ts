import { describe, expect, it } from "vitest";
import { evaluate } from "@ambit/common/policy/evaluate.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import type { Identity } from "@ambit/common/tls/identity.ts";
import { TYPE_ADDRESS, TYPE_AUTHORIZATION } from "@ambit/common/xds/resource-type.ts";
import { MeshHarness } from "../../istiod-lite/src/testing/mesh-harness.ts";
import { MeshState } from "../../ztunnel/src/state/mesh-state.ts";
import type { WorkloadUid } from "../../ztunnel/src/state/workload.ts";
import { POLICY_CASES, type PolicyCase, type Reach } from "./policy-cases.ts";

const FAR_IP = "10.244.2.3" as Ip;
const SOURCES: Readonly<Record<keyof Reach, { ip: Ip; identity?: Identity }>> = {
  client: { ip: "10.244.1.2" as Ip, identity: identity("shop", "client") },
  peer: { ip: "10.244.1.4" as Ip, identity: identity("friends", "peer") },
  legacy: { ip: "10.244.2.5" as Ip },
};

const FAR = `
apiVersion: v1
kind: Pod
metadata:
  name: far
  namespace: shop
  labels: { app: far }
  annotations: { ambient.istio.io/redirection: enabled }
spec: { nodeName: node-2, serviceAccountName: far, containers: [{ name: app }] }
status: { phase: Running, podIP: ${FAR_IP}, conditions: [{ type: Ready, status: "True" }] }`;

function identity(namespace: string, serviceAccount: string): Identity {
  return { trustDomain: "cluster.local", namespace, serviceAccount };
}

/** What a ztunnel holds after istiod-lite has translated the policies. */
function stateOf(policies: readonly string[]): MeshState {
  const { held } = new MeshHarness().apply(FAR, ...policies);
  const state = new MeshState();
  const resources = (typeUrl: string) =>
    [...held].filter(([key]) => key.startsWith(`${typeUrl} `)).map(([, resource]) => resource);
  const rejected = [
    ...state.applyAddresses({ upserts: resources(TYPE_ADDRESS), removed: [] }),
    ...state.applyAuthorizations({ upserts: resources(TYPE_AUTHORIZATION), removed: [] }),
  ];
  expect(rejected).toEqual([]);
  return state;
}

function reachOf({ policies, port }: PolicyCase): Reach {
  const state = stateOf(policies);
  const far = state.workload("Kubernetes//Pod/shop/far" as WorkloadUid)!;
  const reaches = (name: keyof Reach) => {
    const { ip, identity: sourceIdentity } = SOURCES[name];
    return evaluate(state.policiesFor(far), {
      sourceIp: ip,
      ...(sourceIdentity && { sourceIdentity }),
      destinationIp: FAR_IP,
      destinationPort: port,
    }).allowed;
  };
  return { client: reaches("client"), peer: reaches("peer"), legacy: reaches("legacy") };
}

describe("who reaches a pod", () => {
  it("is tried in at least 150 cases, each told apart by its name", () => {
    const names = POLICY_CASES.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names.length).toBeGreaterThanOrEqual(150);
  });

  it.each(POLICY_CASES)("under: $name", (policyCase) => {
    expect(reachOf(policyCase)).toEqual(policyCase.reach);
  });
});
