import { describe, expect, it } from "vitest";
import {
  AppProtocol,
  LoadBalancing_HealthPolicy as HealthPolicy,
  LoadBalancing_Mode as Mode,
  LoadBalancing_Scope as Scope,
  NetworkMode,
  TunnelProtocol,
} from "@ambit/api/gen/istio/workload_pb.ts";
import { MeshHarness, objectYaml, podYaml, serviceYaml } from "../testing/mesh-harness.ts";

const PORTS = "ports: [{ number: 80, name: http, protocol: HTTP, targetPort: 8080 }]";
const entry = (spec: string, name = "e", metadata?: string) =>
  objectYaml("ServiceEntry", name, `{ ${spec}, ${PORTS} }`, metadata);
const workloadEntry = (name: string, spec: string, metadata?: string) =>
  objectYaml("WorkloadEntry", name, `{ ${spec} }`, metadata);
const ofEntry = (address: string, name = "e") =>
  `networking.istio.io/ServiceEntry/shop/${name}/${address}`;
const HOST = "shop/h.test";
const PAIR = { servicePort: 80, targetPort: 8080 };

describe("a ServiceEntry", () => {
  it("is a service per host, with its addresses and ports", () => {
    const mesh = new MeshHarness().apply(
      entry("hosts: [h.test, i.test], addresses: [10.9.0.1, 10.8.0.0/16], resolution: STATIC"),
    );
    expect(mesh.addresses).toEqual([HOST, "shop/i.test"]);
    expect(mesh.service(HOST)).toMatchObject({
      name: "e",
      hostname: "h.test",
      canonical: true,
      ports: [{ ...PAIR, appProtocol: AppProtocol.HTTP11 }],
      addresses: [
        { address: Uint8Array.of(10, 9, 0, 1) },
        { address: Uint8Array.of(10, 8, 0, 0), length: 16 },
      ],
    });
    expect(mesh.resource(HOST)?.aliases).toEqual(["/10.9.0.1", "/10.8.0.0/16"]);
  });

  it("without resolution lets traffic through to where it was going", () => {
    const mesh = new MeshHarness().apply(
      entry("hosts: [h.test], addresses: [10.9.0.0/24], resolution: NONE"),
    );
    expect(mesh.service(HOST).loadBalancing).toMatchObject({
      mode: Mode.PASSTHROUGH,
      healthPolicy: HealthPolicy.ALLOW_ALL,
    });
    expect(mesh.addresses).toEqual([HOST]);
  });

  it.each(["DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"])(
    "resolved by %s without endpoints is its own endpoint, host by host",
    (resolution) => {
      const mesh = new MeshHarness().apply(
        entry(`hosts: [h.test, i.test], resolution: ${resolution}`),
      );
      expect(mesh.workload(ofEntry("h.test"))).toMatchObject({
        hostname: "h.test",
        addresses: [],
        services: { [HOST]: { ports: [PAIR] } },
      });
      expect(Object.keys(mesh.workload(ofEntry("i.test")).services)).toEqual(["shop/i.test"]);
    },
  );

  it("with a wildcard is a service only where names are resolved as they are asked for", () => {
    const hosts = "hosts: ['*.h.test', h.test]";
    const mesh = new MeshHarness().apply(entry(`${hosts}, resolution: DNS`));
    expect(mesh.addresses.filter((name) => name.startsWith("shop/"))).toEqual([HOST]);
    expect([...mesh.statuses.values()][0]?.conditions).toEqual([]);
    mesh.apply(entry(`${hosts}, resolution: DYNAMIC_DNS`));
    expect(mesh.addresses.filter((name) => name.startsWith("shop/"))).toEqual([
      "shop/*.h.test",
      HOST,
    ]);
    expect(mesh.addresses).not.toContain(`Kubernetes/${ofEntry("*.h.test")}`);
    expect([...mesh.statuses.values()][0]?.conditions).toMatchObject([
      { type: "istio.io/WaypointMissing", reason: "NoWaypointForWildcardService" },
    ]);
  });

  it("lists endpoints by address or name, each with what it says of itself", () => {
    const mesh = new MeshHarness({ network: "net" }).apply(
      entry(`hosts: [h.test, i.test], resolution: STATIC, endpoints: [
        { address: 10.1.1.1, ports: { http: 9090 }, locality: r/z/s, weight: 3, network: far,
          serviceAccount: sa, labels: { app: x, version: v2, networking.istio.io/tunnel: http } },
        { address: db.test }, { address: "unix:///x" }, { address: 10.1.1.1, weight: 5 }]`),
    );
    expect(mesh.addresses).toHaveLength(4);
    expect(mesh.workload(ofEntry("db.test"))).toMatchObject({
      hostname: "db.test",
      network: "net",
      serviceAccount: "default",
      canonicalName: "e",
      tunnelProtocol: TunnelProtocol.NONE,
      services: { [HOST]: { ports: [PAIR] }, "shop/i.test": { ports: [PAIR] } },
    });
    expect(mesh.workload(ofEntry("10.1.1.1")).capacity).toBe(5);
  });

  it("puts each endpoint where and how it says", () => {
    const mesh = new MeshHarness().apply(
      entry(`hosts: [h.test], resolution: STATIC, endpoints: [
        { address: 10.1.1.1, ports: { http: 9090 }, locality: r/z/s, weight: 3, network: far,
          serviceAccount: sa, labels: { app: x, version: v2, networking.istio.io/tunnel: http } }]`),
    );
    expect(mesh.workload(ofEntry("10.1.1.1"))).toMatchObject({
      addresses: [Uint8Array.of(10, 1, 1, 1)],
      locality: { region: "r", zone: "z", subzone: "s" },
      capacity: 3,
      network: "far",
      serviceAccount: "sa",
      canonicalName: "x",
      canonicalRevision: "v2",
      tunnelProtocol: TunnelProtocol.HBONE,
      nativeTunnel: true,
      networkMode: NetworkMode.STANDARD,
      services: { [HOST]: { ports: [{ servicePort: 80, targetPort: 9090 }] } },
    });
  });

  it("uses addresses that were allocated to it, host by host, unless it has its own", () => {
    const status = (value: string, host: string) => `{ value: ${value}, host: ${host} }`;
    const allocated = `status: { addresses: [${status("240.240.0.1", "h.test")}, ${status("240.240.0.2", "i.test")}] }`;
    const withStatus = (spec: string) => entry(spec).replace("---", `${allocated}\n---`);
    const mesh = new MeshHarness().apply(withStatus("hosts: [h.test, i.test], resolution: DNS"));
    expect(mesh.resource(HOST)?.aliases).toEqual(["/240.240.0.1"]);
    expect(mesh.resource("shop/i.test")?.aliases).toEqual(["/240.240.0.2"]);
    mesh.apply(withStatus("hosts: [h.test], resolution: DNS, addresses: [10.9.0.1]"));
    expect(mesh.resource(HOST)?.aliases).toEqual(["/10.9.0.1"]);
    mesh.apply(withStatus("hosts: [h.test], resolution: NONE"));
    expect(mesh.resource(HOST)?.aliases).toEqual([]);
  });
});

describe("a ServiceEntry with a workloadSelector", () => {
  const selecting = entry(
    "hosts: [h.test], resolution: STATIC, workloadSelector: { labels: { app: a } }",
  );

  it("has the pods and WorkloadEntries of its namespace as endpoints", () => {
    const mesh = new MeshHarness().apply(
      podYaml("a"),
      workloadEntry("w", "address: 10.3.3.3, labels: { app: a }, ports: { http: 7070 }"),
      workloadEntry("v", "address: 10.3.3.4", "namespace: shop, labels: { app: a }"),
      workloadEntry("x", "address: 10.3.3.5, labels: { app: a }", "namespace: other"),
      selecting,
    );
    const uid = (name: string) => `networking.istio.io/WorkloadEntry/shop/${name}`;
    expect(mesh.pod("a").services[HOST]?.ports).toMatchObject([PAIR]);
    expect(mesh.workload(uid("w")).services[HOST]?.ports).toMatchObject([
      { servicePort: 80, targetPort: 7070 },
    ]);
    expect(mesh.workload(uid("v")).services[HOST]?.ports).toMatchObject([PAIR]);
    expect(mesh.workload("networking.istio.io/WorkloadEntry/other/x").services).toEqual({});
    mesh.remove(selecting);
    expect(mesh.pod("a").services).toEqual({});
  });

  it("finds a pod's port by the name of its own", () => {
    const named = selecting.replace("name: http", "name: web");
    const pod = podYaml("a").replace("containerPort: 8080", "containerPort: 9090");
    const mesh = new MeshHarness().apply(pod, named);
    expect(mesh.pod("a").services[HOST]?.ports).toMatchObject([
      { servicePort: 80, targetPort: 9090 },
    ]);
  });

  it("implies no endpoint of its own", () => {
    const mesh = new MeshHarness().apply(selecting.replace("STATIC", "DNS"));
    expect(mesh.addresses).toEqual([HOST]);
  });
});

describe("a host that several claim", () => {
  const claim = (name: string, day: number, namespace = "shop", host = "h.test") =>
    entry(
      `hosts: [${host}], resolution: STATIC`,
      name,
      `namespace: ${namespace}, creationTimestamp: "2026-01-0${day}"`,
    );

  it("is the oldest entry's in a namespace, and falls to the next when that goes", () => {
    const mesh = new MeshHarness().apply(claim("young", 2), claim("old", 1));
    expect(mesh.service(HOST).name).toBe("old");
    mesh.remove(claim("old", 1));
    expect(mesh.service(HOST).name).toBe("young");
    expect(mesh.pushed).toEqual([HOST]);
  });

  it("has one that counts in the whole mesh", () => {
    const mesh = new MeshHarness().apply(claim("a", 2), claim("b", 1, "other"));
    const canonical = () =>
      ["shop", "other"].map((namespace) => mesh.service(`${namespace}/h.test`).canonical);
    expect(canonical()).toEqual([false, true]);
    mesh.apply(claim("b", 3, "other"));
    expect(canonical()).toEqual([true, false]);
  });

  it("is the Kubernetes Service's, however young it is", () => {
    const host = "web.shop.svc.cluster.local";
    const mesh = new MeshHarness().apply(
      claim("same", 1, "shop", host),
      claim("far", 1, "other", host),
      serviceYaml("web"),
    );
    expect(mesh.service(`shop/${host}`)).toMatchObject({ name: "web", canonical: true });
    expect(mesh.service(`other/${host}`)).toMatchObject({ name: "far", canonical: false });
    mesh.remove(serviceYaml("web"));
    expect(mesh.service(`shop/${host}`).name).toBe("same");
  });
});

describe("a WorkloadEntry", () => {
  it("is an endpoint of Services that select it", () => {
    const mesh = new MeshHarness({ trustDomain: "td" }).apply(
      workloadEntry(
        "w",
        "address: vm.test, labels: { app: a }, ports: { web: 7070 }, locality: r/z",
      ),
      serviceYaml("web"),
    );
    expect(mesh.workload("networking.istio.io/WorkloadEntry/shop/w")).toMatchObject({
      hostname: "vm.test",
      trustDomain: "td",
      locality: { region: "r", zone: "z", subzone: "" },
      services: {
        "shop/web.shop.svc.cluster.local": { ports: [{ servicePort: 80, targetPort: 7070 }] },
      },
    });
  });

  it.each([
    ["a targeted name it has", "web", "{ web: 7070, http: 1 }", [[80, 7070]]],
    ["a targeted name it lacks", "web", "{ http: 7070 }", []],
    ["a targeted number", "8080", "{}", [[80, 8080]]],
    ["a targeted number and the port's name", "8080", "{ http: 7070 }", [[80, 7070]]],
  ])("serves %s", (_what, target, ports, expected) => {
    const mesh = new MeshHarness().apply(
      workloadEntry("w", `address: vm.test, labels: { app: a }, ports: ${ports}`),
      serviceYaml("web").replace("targetPort: web", `targetPort: ${target}`),
    );
    const served = mesh.workload("networking.istio.io/WorkloadEntry/shop/w").services;
    const [list] = Object.values(served);
    expect(list?.ports.map(({ servicePort, targetPort }) => [servicePort, targetPort])).toEqual(
      expected,
    );
  });

  it.each(["weight: 1", "address: ''", "address: 'unix:///run/x'"])(
    "with %s has no address to be reached at, and is no workload",
    (spec) => {
      expect(new MeshHarness().apply(workloadEntry("w", spec)).addresses).toEqual([]);
    },
  );
});

const { NETWORK, REGION, ZONE, SUBZONE, NODE } = Scope;
const ZONES = [NETWORK, REGION, ZONE];
const NODES = [...ZONES, SUBZONE, NODE];
const wish = (text: string) => `annotations: { networking.istio.io/traffic-distribution: ${text} }`;
const namespaceYaml = (metadata: string) =>
  `apiVersion: v1\nkind: Namespace\nmetadata: { name: shop, ${metadata} }\n---\n`;

describe("traffic distribution", () => {
  const web = (spec: string, metadata: string) =>
    objectYaml(
      "Service",
      "web",
      `{ clusterIP: 10.96.0.1, ${spec} }`,
      `namespace: shop, ${metadata}`,
    );

  it.each<[string, string, string, string, Mode, Scope[]]>([
    ["none", "", "", "", Mode.UNSPECIFIED_MODE, []],
    ["the spec's", "trafficDistribution: PreferClose", "", "", Mode.FAILOVER, ZONES],
    ["the spec's zone", "trafficDistribution: PreferSameZone", "", "", Mode.FAILOVER, ZONES],
    ["the spec's node", "trafficDistribution: PreferSameNode", "", "", Mode.FAILOVER, NODES],
    ["the annotation's, in any case", "", wish("prefersamenode"), "", Mode.FAILOVER, NODES],
    ["the namespace's", "", "", wish("PreferClose"), Mode.FAILOVER, ZONES],
    [
      "the annotation's before the namespace's",
      "",
      wish("PreferSameNode"),
      wish("PreferClose"),
      Mode.FAILOVER,
      NODES,
    ],
    [
      "the spec's before the annotation's",
      "trafficDistribution: PreferClose",
      wish("PreferSameNode"),
      "",
      Mode.FAILOVER,
      ZONES,
    ],
    ["a word nobody knows", "", wish("PreferMoon"), "", Mode.UNSPECIFIED_MODE, []],
    [
      "local only, before all",
      "internalTrafficPolicy: Local, trafficDistribution: PreferClose",
      "",
      "",
      Mode.STRICT,
      [NODE],
    ],
  ])("of a Service: %s", (_, spec, metadata, namespace, mode, routingPreference) => {
    const mesh = new MeshHarness().apply(web(spec, metadata), namespaceYaml(namespace));
    const { loadBalancing } = mesh.service("shop/web.shop.svc.cluster.local");
    expect(loadBalancing?.mode ?? Mode.UNSPECIFIED_MODE).toBe(mode);
    expect(loadBalancing?.routingPreference ?? []).toEqual(routingPreference);
  });

  it.each([
    ["its annotation", `namespace: shop, ${wish("PreferClose")}`, ""],
    ["its namespace's", "namespace: shop", wish("PreferClose")],
  ])("of a ServiceEntry is %s", (_, metadata, namespace) => {
    const mesh = new MeshHarness().apply(
      entry("hosts: [h.test], resolution: DNS", "e", metadata),
      namespaceYaml(namespace),
    );
    expect(mesh.service(HOST).loadBalancing).toMatchObject({ routingPreference: ZONES });
    mesh.apply(namespaceYaml(""), entry("hosts: [h.test], resolution: DNS"));
    expect(mesh.service(HOST).loadBalancing).toBeUndefined();
  });
});

describe("the network", () => {
  it("is the root namespace's label, for everything that does not say", () => {
    const root = (labels: string) =>
      `apiVersion: v1\nkind: Namespace\nmetadata: { name: istio-system, labels: { ${labels} } }\n---\n`;
    const mesh = new MeshHarness({ network: "usual" }).apply(podYaml("a"), serviceYaml("web"));
    expect(mesh.resource("Kubernetes//Pod/shop/a")?.aliases).toEqual(["usual/10.0.0.1"]);
    mesh.apply(root("topology.istio.io/network: n2"));
    expect(mesh.resource("Kubernetes//Pod/shop/a")?.aliases).toEqual(["n2/10.0.0.1"]);
    expect(mesh.resource("shop/web.shop.svc.cluster.local")?.aliases).toEqual(["n2/10.96.0.1"]);
    mesh.apply(root(""));
    expect(mesh.pod("a").network).toBe("usual");
  });
});
