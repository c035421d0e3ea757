import { describe, expect, it } from "vitest";
import type { ClientNode } from "@ambit/common/xds/delta-session.ts";
import { mismatch } from "./token-gate.ts";

const caller = { namespace: "istio-system", serviceAccount: "ztunnel" };

function node(namespace: string, metadata: ClientNode["metadata"] = {}): ClientNode {
  const id = `ztunnel~1.1.1.1~z.${namespace}~${namespace}.svc.cluster.local`;
  return { id, type: "ztunnel", ip: "1.1.1.1", name: "z", namespace, metadata };
}

describe("a token's holder", () => {
  it.each([
    ["its own namespace", node("istio-system"), true],
    ["its own account", node("istio-system", { SERVICE_ACCOUNT: "ztunnel" }), true],
    ["another namespace", node("shop"), false],
    ["another namespace in the metadata", node("istio-system", { NAMESPACE: "shop" }), false],
    ["another account", node("istio-system", { SERVICE_ACCOUNT: "admin" }), false],
    ["metadata of the wrong type", node("istio-system", { NAMESPACE: 7 }), false],
  ])("as a node of %s", (_what, claimed, allowed) => {
    expect(mismatch(caller, claimed) === undefined).toBe(allowed);
  });
});
