import { describe, expect, it } from "vitest";
import { ipToBytes, parseIp } from "@ambit/common/net/ip.ts";
import { gateway, HBONE, labelledService as service, use } from "../testing/gateway-yaml.ts";
import { MeshHarness as Harness, objectYaml, podYaml } from "../testing/mesh-harness.ts";

const WEB = "shop/web.shop.svc.cluster.local";
const namespace = (name: string, labels: string, annotations = "") =>
  objectYaml("Namespace", name, "{}", `labels: { ${labels} }, annotations: { ${annotations} }`);
const hostname = (name: string, of = "shop") => ({
  destination: {
    case: "hostname",
    value: { namespace: of, hostname: `${name}.${of}.svc.cluster.local` },
  },
  hboneMtlsPort: 15_008,
});
const bound = (mesh: Harness, object: string) =>
  mesh.statuses.get(object)?.conditions.find(({ type }) => type === "istio.io/WaypointBound");

describe("a waypoint of a service", () => {
  it.each([
    ["its own label", gateway("wp"), "", use("wp"), hostname("wp")],
    ["its namespace's", gateway("wp"), use("wp"), "", hostname("wp")],
    [
      "its own label before its namespace's",
      gateway("wp") + gateway("other"),
      use("other"),
      use("wp"),
      hostname("wp"),
    ],
    ["none, which opts out", gateway("wp"), use("wp"), use("none"), undefined],
    ["one that is not there", "", "", use("wp"), undefined],
    ["one without address", gateway("wp", "shop", { addresses: "[]" }), "", use("wp"), undefined],
    ["nothing from a missing own one", gateway("wp"), use("wp"), use("gone"), undefined],
    [
      "one for all traffic",
      gateway("wp", "shop", { labels: "istio.io/waypoint-for: all" }),
      "",
      use("wp"),
      hostname("wp"),
    ],
    [
      "not one for workloads",
      gateway("wp", "shop", { labels: "istio.io/waypoint-for: workload" }),
      "",
      use("wp"),
      undefined,
    ],
  ])("is %s", (_what, gateways, namespaceLabels, labels, expected) => {
    const mesh = new Harness().apply(namespace("shop", namespaceLabels), gateways, service(labels));
    const found = mesh.service(WEB).waypoint;
    if (expected === undefined) expect(found).toBeUndefined();
    else expect(found).toMatchObject(expected);
  });

  it("is named by address when it has no name", () => {
    const addresses = "[{ type: IPAddress, value: 10.96.0.9 }]";
    const mesh = new Harness().apply(gateway("wp", "shop", { addresses }), service(use("wp")));
    expect(mesh.service(WEB).waypoint?.destination).toMatchObject({
      case: "address",
      value: { network: "", address: ipToBytes(parseIp("10.96.0.9")!) },
    });
  });

  it("may be run by its author, who then says where it is", () => {
    const own = gateway("wp", "shop", { addresses: "[]" }).replace(
      "gatewayClassName",
      "addresses: [{ type: Hostname, value: own.test }], gatewayClassName",
    );
    const mesh = new Harness().apply(own, service(use("wp")));
    expect(mesh.service(WEB).waypoint?.destination.value).toMatchObject({ hostname: "own.test" });
  });

  it("is followed as it comes, changes and goes", () => {
    const mesh = new Harness().apply(service(use("wp")), podYaml("a"));
    expect(mesh.service(WEB).waypoint).toBeUndefined();
    mesh.apply(gateway("wp"));
    expect(mesh.pushed).toEqual([WEB]);
    expect(mesh.service(WEB).waypoint).toMatchObject(hostname("wp"));
    mesh.remove(gateway("wp"));
    expect(mesh.pushed).toEqual([WEB]);
    expect(mesh.service(WEB).waypoint).toBeUndefined();
  });

  it("is not for the service of a waypoint itself", () => {
    const managed = "gateway.istio.io/managed: istio.io-mesh-controller";
    const mesh = new Harness().apply(gateway("wp"), namespace("shop", use("wp")), service(managed));
    expect(mesh.service(WEB).waypoint).toBeUndefined();
  });

  it.each<[string, string, string, boolean]>([
    ["its own", "", "", false],
    ["all", ", allowedRoutes: { namespaces: { from: All } }", "", true],
    ["none", ", allowedRoutes: { namespaces: { from: None } }", "", false],
    [
      "the selected",
      ", allowedRoutes: { namespaces: { from: Selector, selector: { matchLabels: { a: b } } } }",
      "a: b",
      true,
    ],
    [
      "others than this",
      ", allowedRoutes: { namespaces: { from: Selector, selector: { matchLabels: { a: b } } } }",
      "a: c",
      false,
    ],
    [
      "none for want of a selector",
      ", allowedRoutes: { namespaces: { from: Selector } }",
      "",
      false,
    ],
  ])("of another namespace that admits %s namespaces", (_what, routes, labels, admitted) => {
    const mesh = new Harness().apply(
      gateway("wp", "infra", { listener: HBONE + routes }),
      namespace("shop", labels),
      service(use("wp", "infra")),
    );
    expect(mesh.service(WEB).waypoint !== undefined).toBe(admitted);
    expect(bound(mesh, "Service/shop/web")).toMatchObject(
      admitted
        ? { status: "True", reason: "WaypointAccepted" }
        : { status: "False", reason: "AttachmentDenied" },
    );
  });

  it("of another namespace follows that namespace's labels", () => {
    const routes =
      ", allowedRoutes: { namespaces: { from: Selector, selector: { matchLabels: { a: b } } } }";
    const all = { listener: HBONE + routes, labels: "istio.io/waypoint-for: all" };
    const labelled = podYaml("a", `app: a, ${use("wp", "infra")}`);
    const mesh = new Harness().apply(
      gateway("wp", "infra", all),
      namespace("shop", ""),
      service(use("wp", "infra")),
      labelled,
    );
    expect(mesh.pod("a").waypoint).toBeUndefined();
    mesh.apply(namespace("shop", "a: b"));
    expect(mesh.service(WEB).waypoint).toBeDefined();
    expect(mesh.pod("a").waypoint).toBeDefined();
  });

  it("may be for ingress too, by the service's label or its namespace's", () => {
    const label = "istio.io/ingress-use-waypoint";
    const mesh = new Harness().apply(
      gateway("wp"),
      namespace("shop", `${label}: "true"`),
      service(use("wp")),
    );
    expect(mesh.service(WEB).ingressUseWaypoint).toBe(true);
    mesh.apply(service(`${use("wp")}, ${label}: "false"`));
    expect(mesh.service(WEB).ingressUseWaypoint).toBe(false);
    mesh.apply(service(""));
    expect(mesh.service(WEB).ingressUseWaypoint).toBe(false);
  });
});

describe("a canary waypoint", () => {
  const canary = "istio.io/use-waypoint-canary";
  const weight = (value: string) => `${canary}-weight: "${value}"`;
  const both = gateway("wp") + gateway("next");

  it("takes its share of the connections", () => {
    const mesh = new Harness().apply(both, service(`${use("wp")}, ${canary}: next`, weight("10")));
    expect(mesh.service(WEB).waypoint).toMatchObject(hostname("wp"));
    expect(mesh.service(WEB).weightedWaypoints).toMatchObject([
      { destination: hostname("wp"), weight: 90 },
      { destination: hostname("next"), weight: 10 },
    ]);
  });

  it("comes from the namespace for services that name no waypoint", () => {
    const mesh = new Harness().apply(
      both,
      namespace("shop", `${use("wp")}, ${canary}: next`, weight("25")),
      service(""),
    );
    expect(mesh.service(WEB).weightedWaypoints.map((each) => each.weight)).toEqual([75, 25]);
    mesh.apply(service(`${canary}: none`));
    expect(mesh.service(WEB).weightedWaypoints).toEqual([]);
    mesh.apply(service(use("wp")));
    expect(mesh.service(WEB).weightedWaypoints).toEqual([]);
  });

  it.each([
    ["without a weight gets nothing", "next", "", [100, 0]],
    ["of weight 100 gets everything", "next", weight("100"), [0, 100]],
  ])("%s", (_what, name, annotations, weights) => {
    const mesh = new Harness().apply(
      both,
      service(`${use("wp")}, ${canary}: ${name}`, annotations),
    );
    expect(mesh.service(WEB).weightedWaypoints.map((each) => each.weight)).toEqual(weights);
  });

  it.each([
    ["of more than everything", "next", weight("101"), "whole number"],
    ["with a weight that is none", "next", weight("ten"), "whole number"],
    ["that is the primary one", "wp", weight("10"), "is the primary one"],
    ["that is not there", "gone", weight("10"), "does not exist"],
  ])("%s leaves the primary one alone, and the status says so", (_what, name, annotations, why) => {
    const mesh = new Harness().apply(
      both,
      service(`${use("wp")}, ${canary}: ${name}`, annotations),
    );
    expect(mesh.service(WEB).waypoint).toMatchObject(hostname("wp"));
    expect(mesh.service(WEB).weightedWaypoints).toEqual([]);
    expect(bound(mesh, "Service/shop/web")).toMatchObject({
      status: "True",
      reason: "WaypointAccepted",
      message: expect.stringContaining(why) as string,
    });
  });
});

describe("a waypoint of a workload", () => {
  const forAll = gateway("wp", "shop", { labels: "istio.io/waypoint-for: all" });
  const entry = (labels: string) =>
    objectYaml(
      "WorkloadEntry",
      "vm",
      "{ address: 192.0.2.1 }",
      `namespace: shop, labels: { ${labels} }`,
    );

  it("is its own label's", () => {
    const mesh = new Harness().apply(forAll, podYaml("a", use("wp")), entry(use("wp")));
    expect(mesh.pod("a").waypoint).toMatchObject(hostname("wp"));
    expect(mesh.workload("networking.istio.io/WorkloadEntry/shop/vm").waypoint).toMatchObject(
      hostname("wp"),
    );
    expect(bound(mesh, "WorkloadEntry/shop/vm")?.reason).toBe("WaypointAccepted");
  });

  it("is its namespace's as long as that takes workloads, and no mistake otherwise", () => {
    const mesh = new Harness().apply(forAll, namespace("shop", use("wp")), podYaml("a"), entry(""));
    expect(mesh.pod("a").waypoint).toMatchObject(hostname("wp"));
    mesh.apply(gateway("wp"));
    expect(mesh.pod("a").waypoint).toBeUndefined();
    expect(bound(mesh, "WorkloadEntry/shop/vm")).toBeUndefined();
    mesh.apply(entry(use("wp")));
    expect(bound(mesh, "WorkloadEntry/shop/vm")?.reason).toBe("UnsupportedTrafficType");
  });

  it("follows its class when it does not say itself whose traffic it takes", () => {
    const kind = objectYaml(
      "GatewayClass",
      "istio-waypoint",
      "{ controllerName: istio.io/mesh-controller }",
      "labels: { istio.io/waypoint-for: workload }",
    );
    const mesh = new Harness().apply(gateway("wp"), podYaml("a", use("wp")));
    expect(mesh.pod("a").waypoint).toBeUndefined();
    mesh.apply(kind);
    expect(mesh.pod("a").waypoint).toMatchObject(hostname("wp"));
  });

  it("is not for the pods of a waypoint: they get its binding", () => {
    const sandwich = gateway("wp", "shop", {
      labels: "istio.io/waypoint-for: all",
      annotations: "ambient.istio.io/waypoint-inbound-binding: PROXY/15088",
    });
    const pod = podYaml("a", "gateway.networking.k8s.io/gateway-name: wp");
    const mesh = new Harness().apply(sandwich, namespace("shop", use("wp")), pod);
    expect(mesh.pod("a").waypoint).toBeUndefined();
    expect(mesh.pod("a").applicationTunnel).toMatchObject({ protocol: 1, port: 15_088 });
    mesh.apply(forAll);
    expect(mesh.pod("a").applicationTunnel).toBeUndefined();
  });

  it.each([
    ["PROXY", { protocol: 1, port: 0 }],
    ["NONE/8080", { protocol: 0, port: 8080 }],
    ["PROXY/x", { protocol: 1, port: 0 }],
    ["PROXY/65536", { protocol: 1, port: 0 }],
    ["HTTP", undefined],
    ["PROXY/1/2", undefined],
  ])("reads the binding %s", (text, expected) => {
    const annotations = `ambient.istio.io/waypoint-inbound-binding: ${text}`;
    const pod = podYaml("a", "gateway.networking.k8s.io/gateway-name: wp");
    const mesh = new Harness().apply(gateway("wp", "shop", { annotations }), pod);
    const { applicationTunnel } = mesh.pod("a");
    if (expected === undefined) expect(applicationTunnel).toBeUndefined();
    else expect(applicationTunnel).toMatchObject(expected);
  });

  it("admits by the listener that is bound", () => {
    const listener =
      "name: proxy, port: 15088, protocol: istio.io/PROXY, allowedRoutes: { namespaces: { from: All } } }, { " +
      HBONE;
    const annotations = "ambient.istio.io/waypoint-inbound-binding: PROXY";
    const options = { listener, labels: "istio.io/waypoint-for: all" };
    const pod = podYaml("a", use("wp", "infra"));
    const mesh = new Harness().apply(gateway("wp", "infra", options), pod);
    expect(mesh.pod("a").waypoint).toBeUndefined();
    mesh.apply(gateway("wp", "infra", { ...options, annotations }));
    expect(mesh.pod("a").waypoint).toMatchObject(hostname("wp", "infra"));
  });
});

describe("a waypoint of a ServiceEntry", () => {
  const entry = (labels: string, spec = "hosts: [api.test], resolution: DNS", annotations = "") =>
    objectYaml(
      "ServiceEntry",
      "api",
      `{ ${spec}, ports: [{ number: 443, name: tls, protocol: TLS }] }`,
      `namespace: shop, labels: { ${labels} }, annotations: { ${annotations} }`,
    );

  it("is on its services, not on the endpoint that only stands for the host", () => {
    const mesh = new Harness().apply(
      gateway("wp", "shop", { labels: "istio.io/waypoint-for: all" }),
      entry(use("wp")),
    );
    expect(mesh.service("shop/api.test").waypoint).toMatchObject(hostname("wp"));
    const implied = mesh.workload("networking.istio.io/ServiceEntry/shop/api/api.test");
    expect(implied.waypoint).toBeUndefined();
    expect(bound(mesh, "ServiceEntry/shop/api")?.message).toBe("bound to shop/wp");
  });

  it("is on the endpoints that ask for it by their own labels", () => {
    const endpoints = `endpoints: [{ address: 192.0.2.1, labels: { ${use("wp")} } }, { address: 192.0.2.2 }]`;
    const mesh = new Harness().apply(
      entry("", `hosts: [api.test], resolution: STATIC, ${endpoints}`),
      gateway("wp", "shop", { labels: "istio.io/waypoint-for: workload" }),
    );
    const endpoint = (ip: string) =>
      mesh.workload(`networking.istio.io/ServiceEntry/shop/api/${ip}`).waypoint;
    expect(endpoint("192.0.2.1")).toMatchObject(hostname("wp"));
    expect(endpoint("192.0.2.2")).toBeUndefined();
  });

  it.each([
    [
      "a wildcard host",
      'hosts: ["*.test"], resolution: DYNAMIC_DNS',
      "",
      "NoWaypointForWildcardService",
    ],
    [
      "a racing connect strategy",
      "hosts: [api.test], resolution: DNS",
      "istio.io/connect-strategy: RACE_FIRST_TCP_CONNECT",
      "NoWaypointForRacingConnectStrategy",
    ],
  ])("is missed by %s until there is one", (_what, spec, annotations, reason) => {
    const mesh = new Harness().apply(entry(use("wp"), spec, annotations));
    const reasons = () =>
      mesh.statuses.get("ServiceEntry/shop/api")?.conditions.map((c) => c.reason);
    expect(reasons()).toEqual(["WaypointIsNotReady", reason]);
    mesh.apply(gateway("wp"));
    expect(reasons()).toEqual(["WaypointAccepted"]);
  });
});
