import { describe, expect, it } from "vitest";
import type { ResourceEvent } from "@ambit/common/resources/source.ts";
import {
  MeshHarness as Harness,
  parse,
  peerAuthenticationYaml as peerAuthentication,
  podYaml as pod,
  policyYaml as policy,
  serviceYaml as service,
} from "../testing/mesh-harness.ts";

describe("pods and services", () => {
  it("join by selector, with named target ports resolved per pod", () => {
    const mesh = new Harness().apply(pod("a") + service("web"));
    expect(mesh.pod("a").services["shop/web.shop.svc.cluster.local"]?.ports).toMatchObject([
      { servicePort: 80, targetPort: 8080 },
    ]);
    mesh.apply(service("web", "selector: { app: other }"));
    expect(mesh.pod("a").services).toEqual({});
  });

  it("speak HBONE only with the agent's annotation", () => {
    const mesh = new Harness().apply(pod("a"));
    expect(mesh.pod("a").tunnelProtocol).toBe(1);
    mesh.apply(pod("a").replace("enabled", "pending"));
    expect(mesh.pod("a").tunnelProtocol).toBe(0);
  });

  it("are gone when they have finished, and unhealthy when not ready", () => {
    const mesh = new Harness().apply(pod("a").replace('"True"', '"False"'));
    expect(mesh.pod("a").status).toBe(1);
    mesh.apply(pod("a").replace("Running", "Succeeded"));
    expect(mesh.snapshot()).toEqual([]);
  });

  it("follow the labels of their node", () => {
    const node =
      "apiVersion: v1\nkind: Node\nmetadata: { name: node-1, labels: { topology.kubernetes.io/zone: z1 } }\n";
    expect(new Harness().apply(pod("a")).apply(node).pod("a").locality).toMatchObject({
      zone: "z1",
    });
  });
});

describe("PeerAuthentication", () => {
  const STATIC = "istio-system/istio_converted_static_strict";

  it.each([
    ["mesh strict", peerAuthentication("istio-system", "{ mtls: { mode: STRICT } }"), [STATIC]],
    ["namespace strict", peerAuthentication("shop", "{ mtls: { mode: STRICT } }"), [STATIC]],
    [
      "namespace beats mesh",
      peerAuthentication("istio-system", "{ mtls: { mode: STRICT } }") +
        peerAuthentication("shop", "{ mtls: { mode: PERMISSIVE } }"),
      [],
    ],
    [
      "workload beats namespace",
      peerAuthentication("shop", "{ mtls: { mode: STRICT } }") +
        peerAuthentication(
          "shop",
          "{ selector: { matchLabels: { app: a } }, mtls: { mode: DISABLE } }",
          "w",
        ),
      [],
    ],
    [
      "unset inherits",
      peerAuthentication("istio-system", "{ mtls: { mode: STRICT } }") +
        peerAuthentication("shop", "{ mtls: { mode: UNSET } }"),
      [STATIC],
    ],
    [
      "another workload's",
      peerAuthentication(
        "shop",
        "{ selector: { matchLabels: { app: b } }, mtls: { mode: STRICT } }",
      ),
      [],
    ],
    [
      "a strict port",
      peerAuthentication(
        "shop",
        '{ selector: { matchLabels: { app: a } }, portLevelMtls: { "8080": { mode: STRICT } } }',
        "w",
      ),
      ["shop/converted_peer_authentication_w"],
    ],
    [
      "a permissive port under strict",
      peerAuthentication(
        "shop",
        '{ selector: { matchLabels: { app: a } }, mtls: { mode: STRICT }, portLevelMtls: { "8080": { mode: PERMISSIVE } } }',
        "w",
      ),
      ["shop/converted_peer_authentication_w"],
    ],
    [
      "only strict ports under strict",
      peerAuthentication(
        "shop",
        '{ selector: { matchLabels: { app: a } }, mtls: { mode: STRICT }, portLevelMtls: { "8080": { mode: STRICT } } }',
        "w",
      ),
      [STATIC],
    ],
    [
      "a disabled port alone under inherited strict",
      peerAuthentication("istio-system", "{ mtls: { mode: STRICT } }") +
        peerAuthentication(
          "shop",
          '{ selector: { matchLabels: { app: a } }, portLevelMtls: { "8080": { mode: DISABLE } } }',
          "w",
        ),
      [STATIC],
    ],
  ])("%s", (_, yaml, policies) => {
    const mesh = new Harness().apply(pod("a")).apply(yaml);
    expect(mesh.pod("a").authorizationPolicies).toEqual(policies);
    expect(mesh.policy(STATIC)).toBeDefined();
    mesh.remove(yaml);
    expect(mesh.pod("a").authorizationPolicies).toEqual([]);
    expect(mesh.policy(STATIC)).toBeUndefined();
  });
});

describe("AuthorizationPolicy", () => {
  it.each([
    ["no selector in a namespace", "{ rules: [{}] }", "shop", 1],
    ["no selector in the root namespace", "{ rules: [{}] }", "istio-system", 0],
    ["a selector", "{ selector: { matchLabels: { app: a } }, rules: [{}] }", "shop", 2],
    ["an empty selector", "{ selector: {}, rules: [{}] }", "shop", 2],
  ])("has the scope of %s", (_, spec, namespace, scope) => {
    expect(new Harness().apply(policy(spec, namespace)).policy(`${namespace}/p`)?.scope).toBe(
      scope,
    );
  });

  it("names the workloads it selects", () => {
    const mesh = new Harness().apply(
      pod("a") + pod("bb", "app: b") + policy("{ selector: { matchLabels: { app: a } } }"),
    );
    expect([mesh.pod("a").authorizationPolicies, mesh.pod("bb").authorizationPolicies]).toEqual([
      ["shop/p"],
      [],
    ]);
  });

  it("leaves out ALLOW rules with HTTP attributes and says so", () => {
    const mesh = new Harness().apply(
      policy(
        "{ rules: [{ to: [{ operation: { methods: [GET], ports: ['80'] } }] }, { to: [{ operation: { ports: ['81'] } }] }] }",
      ),
    );
    expect(mesh.policy("shop/p")?.rules).toHaveLength(1);
    expect(mesh.statuses.get("AuthorizationPolicy/shop/p")?.conditions).toMatchObject([
      { type: "ZtunnelAccepted", status: "True", reason: "UnsupportedValue" },
    ]);
  });

  it("enforces DENY rules without their HTTP attributes", () => {
    const mesh = new Harness().apply(
      policy(
        "{ action: DENY, rules: [{ to: [{ operation: { methods: [GET], ports: ['80'] } }] }] }",
      ),
    );
    expect(mesh.policy("shop/p")?.rules[0]?.clauses[0]?.matches[0]?.destinationPorts).toEqual([80]);
  });

  it.each(["AUDIT", "CUSTOM"])("does not send %s", (action) => {
    const mesh = new Harness().apply(policy(`{ action: ${action}, rules: [{}] }`));
    expect(mesh.policy("shop/p")).toBeUndefined();
    expect(mesh.statuses.get("AuthorizationPolicy/shop/p")?.conditions[0]?.message).toContain(
      action,
    );
  });
});

describe("a large mesh", () => {
  it("translates one pod when one of ten thousand changes, and pushes one resource", () => {
    const mesh = new Harness().apply(service("web"));
    const [template] = parse(pod("a"));
    const many = Array.from({ length: 10_000 }, (_, i): ResourceEvent => ({
      type: "upsert",
      resource: {
        ...template!,
        metadata: { ...template!.metadata, name: `p${i}` },
      } as typeof template & object,
    }));
    mesh.events(many);
    const before = mesh.model.translations;
    mesh.model.apply({
      type: "upsert",
      resource: parse(pod("p7").replace("10.0.0.2", "10.9.9.9"))[0]!,
    });
    const changes = mesh.model.flush();
    expect(mesh.model.translations - before).toBe(1);
    expect(changes.map(({ upserts, removed }) => [upserts.length, removed.length])).toEqual([
      [1, 0],
    ]);
  });
});
