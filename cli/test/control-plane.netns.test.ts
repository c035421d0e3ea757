// What users tell the control plane and what it tells them, on a mesh as users run it: mesh configuration,
// the path on one node, and the status of rules.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isOurs, Lab, SOON } from "./lab.ts";
import { SHOP } from "./shop.ts";

const lab = new Lab();

beforeAll(() => lab.up(SHOP));
afterAll(() => lab.down());

const label = (...args: string[]) => lab.must("local", "label", ...args);

interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration?: number;
}

interface Shown {
  readonly metadata: { readonly generation?: number };
  readonly status?: { readonly conditions?: readonly Condition[] };
}

async function conditionOf(
  kind: string,
  name: string,
  type: string,
): Promise<Condition | undefined> {
  const text = await lab.must("local", "get", kind, name, "-n", "shop", "-o", "json");
  const shown = JSON.parse(text) as Shown | readonly Shown[];
  const object = "length" in shown ? shown[0] : shown;
  const found = object?.status?.conditions?.find((condition) => condition.type === type);
  return found?.observedGeneration === object?.metadata.generation ? found : undefined;
}

/** Which way connections from client to near go, both on node-1. */
async function pathOnOneNode(): Promise<string> {
  const text = await lab.must("explain", "client.shop", "near.shop:80", "-o", "json");
  return (JSON.parse(text) as { path: string }).path;
}

const policy = (spec: string) => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: rule, namespace: shop }
spec: ${spec}
`;

describe.runIf(isOurs("node-1"))("the path between pods of one node", () => {
  it("follows a label of the namespace, and one of a pod before that", async () => {
    expect(await pathOnOneNode()).toBe("local");
    await label("namespace", "shop", "ambit.io/same-node=hbone");
    await expect.poll(pathOnOneNode, SOON).toBe("hbone");
    expect(await lab.reach("client.shop", "http://near.shop/")).toBe("reached");
    for (const pod of ["client", "near"])
      await label("pod", pod, "-n", "shop", "ambit.io/same-node=local");
    await expect.poll(pathOnOneNode, SOON).toBe("local");
    for (const pod of ["client", "near"])
      await label("pod", pod, "-n", "shop", "ambit.io/same-node-");
    await label("namespace", "shop", "ambit.io/same-node-");
    await expect.poll(pathOnOneNode, SOON).toBe("local");
  });

  it("follows the mesh configuration", async () => {
    const config = `
apiVersion: v1
kind: Namespace
metadata: { name: istio-system }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-system }
data: { ambit: "sameNode: hbone" }
`;
    await lab.whileApplied(config, async () => {
      await expect.poll(pathOnOneNode, SOON).toBe("hbone");
      expect(await lab.reach("client.shop", "http://near.shop/")).toBe("reached");
    });
    await expect.poll(pathOnOneNode, SOON).toBe("local");
  });
});

describe("the status of a rule", () => {
  const applied = (kind = "authorizationpolicy") => conditionOf(kind, "rule", "ambit.io/Applied");

  it("says that every ztunnel has it, and where it is enforced", async () => {
    await lab.whileApplied(
      policy("{ action: DENY, rules: [{ to: [{ operation: { ports: ['9'] } }] }] }"),
      async () => {
        await expect.poll(async () => (await applied())?.status, SOON).toBe("True");
        expect((await applied())?.message).toBe(
          "in force at the ztunnels of every pod of namespace shop: acknowledged by 2 ztunnels",
        );
      },
    );
  });

  it.each([
    ["audits", "{ action: AUDIT, rules: [{}] }", "does not support the AUDIT action"],
    [
      "denies by HTTP attributes alone",
      "{ action: DENY, rules: [{ to: [{ operation: { methods: [GET] } }] }] }",
      "it has no effect",
    ],
    [
      "is for a service without waypoint",
      "{ targetRefs: [{ kind: Service, group: '', name: far }] }",
      "label it istio.io/use-waypoint",
    ],
  ])("that %s says that nobody enforces it, and why", async (_what, spec, why) => {
    await lab.whileApplied(policy(spec), async () => {
      await expect.poll(async () => (await applied())?.reason, SOON).toBe("NotEnforced");
      const table = await lab.must("local", "get", "authorizationpolicies", "-n", "shop");
      expect(table).toMatch(/APPLIED[\s\S]*NotEnforced/);
      expect((await applied())?.message).toContain(why);
    });
  });

  it("of mutual TLS is told too", async () => {
    const strict = policy("{ mtls: { mode: STRICT } }").replace(
      "AuthorizationPolicy",
      "PeerAuthentication",
    );
    await lab.whileApplied(strict, async () => {
      await expect
        .poll(async () => (await applied("peerauthentication"))?.status, SOON)
        .toBe("True");
    });
  });
});
