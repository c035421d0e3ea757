import { StringValueSchema, anyUnpack } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { Service_Visibility } from "@ambit/api/gen/istio/workload_pb.ts";
import { parseMeshConfig } from "../mesh-config/mesh-config.ts";
import { MeshHarness as Harness, objectYaml, podYaml } from "../testing/mesh-harness.ts";

const namespace = (name: string, labels: string) =>
  objectYaml("Namespace", name, "{}", `labels: { ${labels} }`);

describe("settings that change while running", () => {
  it("move the trust domain of every workload", () => {
    const mesh = new Harness().apply(podYaml("a"));
    expect(mesh.configure({ trustDomain: "b.test" }).pod("a").trustDomain).toBe("b.test");
    expect(mesh.configure({ trustDomain: "cluster.local" }).pod("a").trustDomain).toBe("");
  });

  it("move the root namespace with its policies", () => {
    const policy = (of: string) =>
      objectYaml("AuthorizationPolicy", "p", "{ rules: [{}] }", `namespace: ${of}`);
    const strict = objectYaml(
      "PeerAuthentication",
      "default",
      "{ mtls: { mode: STRICT } }",
      "namespace: root",
    );
    const mesh = new Harness().apply(policy("root"), strict, podYaml("a"));
    expect(mesh.policy("root/p")?.scope).toBe(1);
    expect(mesh.pod("a").authorizationPolicies).toEqual([]);
    mesh.configure({ rootNamespace: "root" });
    expect(mesh.policy("root/p")?.scope).toBe(0);
    expect(mesh.pod("a").authorizationPolicies).toEqual(["root/istio_converted_static_strict"]);
    mesh.configure({ rootNamespace: "istio-system" });
    expect(mesh.policy("root/istio_converted_static_strict")).toBeUndefined();
    expect(mesh.pod("a").authorizationPolicies).toEqual([]);
  });

  it("push nothing when they say the same", () => {
    const mesh = new Harness().apply(podYaml("a"));
    const { translations } = mesh.model;
    mesh.configure({ trustDomain: "cluster.local" });
    expect([mesh.pushed, mesh.model.translations - translations]).toEqual([[], 0]);
  });
});

describe("the path of pods on one node", () => {
  const modeOf = (mesh: Harness) =>
    mesh
      .pod("a")
      .extensions.map(({ name, config }) => [name, anyUnpack(config!, StringValueSchema)?.value]);
  const label = (mode: string) => `ambit.io/same-node: ${mode}`;

  it.each([
    ["nobody says", undefined, "", "app: a", undefined],
    ["the mesh says", "hbone", "", "app: a", "hbone"],
    ["the namespace says", "hbone", label("direct"), "app: a", "direct"],
    ["the pod says", "hbone", label("direct"), label("local"), "local"],
    ["the pod says what nobody knows", undefined, label("direct"), label("magic"), "direct"],
  ] as const)("is as %s", (_what, sameNode, ofNamespace, ofPod, expected) => {
    const mesh = new Harness({ sameNode }).apply(
      namespace("shop", ofNamespace),
      podYaml("a", ofPod),
    );
    expect(modeOf(mesh)).toEqual(expected === undefined ? [] : [["ambit.io/same-node", expected]]);
  });

  it("follows the namespace and the mesh", () => {
    const mesh = new Harness().apply(podYaml("a"), namespace("shop", label("hbone")));
    expect(modeOf(mesh)[0]?.[1]).toBe("hbone");
    mesh.apply(namespace("shop", ""));
    expect(modeOf(mesh)).toEqual([]);
    expect(modeOf(mesh.configure({ sameNode: "direct" }))[0]?.[1]).toBe("direct");
  });
});

describe("ServiceEntries that the mesh lets be seen less", () => {
  const HOST = "shop/h.test";
  const visibility = (text: string) =>
    parseMeshConfig({ mesh: `serviceEntryVisibility: ${text}` }).serviceEntryVisibility;
  const entry = (of = "shop", day = 1, spec = "resolution: STATIC") =>
    objectYaml(
      "ServiceEntry",
      "e",
      `{ hosts: [h.test], ${spec}, ports: [{ number: 80, name: http }] }`,
      `namespace: ${of}, creationTimestamp: "2026-01-0${day}"`,
    );
  const reason = (mesh: Harness) =>
    mesh.statuses
      .get("ServiceEntry/shop/e")
      ?.conditions.find(({ type }) => type === "istio.io/VisibilityApplied")?.reason;

  it("are for their own namespace only, and never stand for the host in the mesh", () => {
    const mesh = new Harness({
      serviceEntryVisibility: visibility(
        "{ policies: [{ visibility: NAMESPACE, matchingRules: [{ namespaceSelector: { matchLabels: { a: b } } }] }] }",
      ),
    }).apply(namespace("shop", "a: b"), entry(), entry("other", 2));
    expect(mesh.service(HOST)).toMatchObject({
      visibility: Service_Visibility.NAMESPACE,
      canonical: false,
    });
    expect(mesh.service("other/h.test").canonical).toBe(true);
    expect(reason(mesh)).toBe("Namespace");
    mesh.apply(namespace("shop", ""));
    expect(mesh.service(HOST)).toMatchObject({ visibility: 0, canonical: true });
    expect(mesh.service("other/h.test").canonical).toBe(false);
    expect(reason(mesh)).toBe("Public");
  });

  it("are left out altogether, with the workloads they list or select", () => {
    const selecting = "resolution: STATIC, workloadSelector: { labels: { app: a } }";
    const mesh = new Harness().apply(podYaml("a"), entry("shop", 1, selecting));
    expect(Object.keys(mesh.pod("a").services)).toEqual([HOST]);
    mesh.configure({ serviceEntryVisibility: visibility("{ defaultVisibility: NONE }") });
    expect(mesh.resource(HOST)).toBeUndefined();
    expect(mesh.pod("a").services).toEqual({});
    expect(reason(mesh)).toBe("None");
    mesh.configure({ serviceEntryVisibility: undefined });
    expect(Object.keys(mesh.pod("a").services)).toEqual([HOST]);
    expect(reason(mesh)).toBeUndefined();
  });

  it("may not use a waypoint of another namespace while they are for their own", () => {
    const gateway = objectYaml(
      "Gateway",
      "wp",
      "{ gatewayClassName: istio-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE, allowedRoutes: { namespaces: { from: All } } }] }",
      "namespace: infra",
    ).replace(/---$/, "status: { addresses: [{ type: IPAddress, value: 10.96.0.9 }] }\n---");
    const labels = "istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: infra";
    const mesh = new Harness({
      serviceEntryVisibility: visibility("{ defaultVisibility: NAMESPACE }"),
    }).apply(gateway, entry().replace("namespace: shop", `namespace: shop, labels: { ${labels} }`));
    expect(mesh.service(HOST).waypoint).toBeUndefined();
    expect(mesh.statuses.get("ServiceEntry/shop/e")?.conditions[0]).toMatchObject({
      status: "False",
      reason: "CrossNamespaceWaypointForbidden",
    });
    mesh.configure({ serviceEntryVisibility: visibility("{ defaultVisibility: PUBLIC }") });
    expect(mesh.service(HOST).waypoint).toBeDefined();
  });
});

describe("hosts that an entry does not have to itself", () => {
  const claim = (name: string, day: number, spec: string) =>
    objectYaml(
      "ServiceEntry",
      name,
      `{ hosts: [h.test], resolution: STATIC, ports: [{ number: 80, name: http }], ${spec} }`,
      `namespace: shop, creationTimestamp: "2026-01-0${day}"`,
    );

  it("get no endpoints from it, until the host falls to it", () => {
    const old = claim("old", 1, "endpoints: [{ address: 192.0.2.1 }]");
    const young = claim("young", 2, "workloadSelector: { labels: { app: a } }");
    const listed = claim("youngest", 3, "endpoints: [{ address: 192.0.2.3 }]");
    const mesh = new Harness().apply(podYaml("a"), young, listed, old);
    expect(mesh.pod("a").services).toEqual({});
    expect(mesh.addresses).not.toContain(
      "Kubernetes/networking.istio.io/ServiceEntry/shop/youngest/192.0.2.3",
    );
    const conflict = (name: string) =>
      mesh.statuses
        .get(`ServiceEntry/shop/${name}`)
        ?.conditions.find(({ type }) => type === "ambit.io/HostConflict")?.message;
    expect([conflict("old"), conflict("young")]).toEqual([
      undefined,
      "h.test is ServiceEntry old's: what this entry says of it has no effect",
    ]);
    mesh.remove(old);
    expect([conflict("young"), conflict("youngest")]).toEqual([
      undefined,
      expect.stringContaining("young's") as string,
    ]);
    expect(Object.keys(mesh.pod("a").services)).toEqual(["shop/h.test"]);
    mesh.remove(young);
    expect(mesh.addresses).toContain(
      "Kubernetes/networking.istio.io/ServiceEntry/shop/youngest/192.0.2.3",
    );
  });
});
