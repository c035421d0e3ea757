import { describe, expect, it } from "vitest";
import { NetworkMode, TunnelProtocol, WorkloadStatus } from "@ambit/api/gen/istio/workload_pb.ts";
import {
  MeshHarness as Harness,
  objectYaml,
  podYaml,
  serviceYaml,
} from "../testing/mesh-harness.ts";

const made = (yaml: string, settings = {}) => new Harness(settings).apply(yaml).pod("a");
const owned = (kind: string, name: string, labels = "") =>
  podYaml("a", labels).replace(
    "namespace: shop",
    `namespace: shop\n  ownerReferences: [{ kind: ${kind}, name: ${name}, controller: true }]`,
  );

describe("the name of what a pod belongs to", () => {
  it.each([
    ["itself", podYaml("a", ""), "a"],
    ["a DaemonSet", owned("DaemonSet", "agent"), "agent"],
    ["a Deployment", owned("ReplicaSet", "web-7d4", "pod-template-hash: 7d4"), "web"],
    ["a ReplicaSet of its own", owned("ReplicaSet", "web-7d4"), "web-7d4"],
    [
      "a ReplicaSet of another hash",
      owned("ReplicaSet", "web-7d4", "pod-template-hash: x"),
      "web-7d4",
    ],
    ["a Rollout", owned("ReplicaSet", "web-7d4", "rollouts-pod-template-hash: 7d4"), "web"],
    ["a DeploymentConfig", owned("ReplicationController", "web-3", "deploymentconfig: web"), "web"],
    ["a ReplicationController", owned("ReplicationController", "web-3"), "web-3"],
    ["a CronJob", owned("Job", "report-27912345"), "report"],
    ["a Job", owned("Job", "report-1"), "report-1"],
    ["what its label says", owned("Job", "x", "service.istio.io/workload-name: w"), "w"],
  ])("is of %s", (_what, yaml, expected) => {
    expect(made(yaml).workloadName).toBe(expected);
  });
});

describe("canonical names", () => {
  it.each([
    ["", "a", "latest"],
    ["app: b, version: v1", "b", "v1"],
    ["app: b, app.kubernetes.io/name: c, version: v1, app.kubernetes.io/version: v2", "c", "v2"],
    [
      "app.kubernetes.io/name: c, service.istio.io/canonical-name: d, service.istio.io/canonical-revision: v3",
      "d",
      "v3",
    ],
  ])("of labels { %s } are %s and %s", (labels, name, revision) => {
    const { canonicalName, canonicalRevision } = made(podYaml("a", labels));
    expect([canonicalName, canonicalRevision]).toEqual([name, revision]);
  });
});

describe("a pod", () => {
  it.each([
    ["captured", podYaml("a"), TunnelProtocol.HBONE, false],
    ["being captured", podYaml("a").replace("enabled", "pending"), TunnelProtocol.NONE, false],
    [
      "asked for only",
      podYaml("a", "istio.io/dataplane-mode: ambient").replace("enabled", "no"),
      TunnelProtocol.NONE,
      false,
    ],
    [
      "with HBONE of its own",
      podYaml("a", "networking.istio.io/tunnel: http").replace("enabled", "no"),
      TunnelProtocol.HBONE,
      true,
    ],
  ])("that is %s has the tunnel to show for it", (_what, yaml, tunnelProtocol, nativeTunnel) => {
    expect(made(yaml)).toMatchObject({ tunnelProtocol, nativeTunnel });
  });

  it("of two families has both addresses, and answers to both", () => {
    const ips = "podIPs: [{ ip: 10.0.0.1 }, { ip: 'fd00::1' }]";
    const mesh = new Harness().apply(podYaml("a").replace("podIP: 10.0.0.1", ips));
    expect(mesh.pod("a").addresses).toHaveLength(2);
    expect(mesh.resource("Kubernetes//Pod/shop/a")?.aliases).toEqual(["/10.0.0.1", "/fd00::1"]);
  });

  it.each([
    ["Pending with an address", "phase: Running", "phase: Pending", true],
    ["Pending without one", "podIP: 10.0.0.1,", "", false],
    ["Succeeded", "phase: Running", "phase: Succeeded", false],
    ["Failed", "phase: Running", "phase: Failed", false],
  ])("that is %s is a workload or none", (_what, from, to, there) => {
    const mesh = new Harness().apply(podYaml("a").replace(from, to));
    expect(mesh.addresses.length > 0).toBe(there);
  });

  it.each([
    ["ready", "x", "x", WorkloadStatus.HEALTHY],
    ["not ready", '"True"', '"False"', WorkloadStatus.UNHEALTHY],
    [
      "without conditions",
      'conditions: [{ type: Ready, status: "True" }]',
      "hostIP: 1.1.1.1",
      WorkloadStatus.UNHEALTHY,
    ],
    [
      "going",
      "namespace: shop",
      "namespace: shop\n  deletionTimestamp: now",
      WorkloadStatus.UNHEALTHY,
    ],
  ])("that is %s is sent with its health", (_what, from, to, status) => {
    expect(made(podYaml("a").replace(from, to)).status).toBe(status);
  });

  it("in the host's network is marked so", () => {
    const yaml = podYaml("a").replace("nodeName:", "hostNetwork: true\n  nodeName:");
    expect(made(yaml).networkMode).toBe(NetworkMode.HOST_NETWORK);
  });

  it("says its trust domain unless it is the usual one, and its network from the mesh", () => {
    const pod = podYaml("a", "topology.istio.io/network: own");
    expect(made(pod)).toMatchObject({ trustDomain: "", network: "" });
    expect(made(pod, { trustDomain: "td", network: "n" })).toMatchObject({
      trustDomain: "td",
      network: "n",
    });
  });

  it("is where its node is, down to the subzone", () => {
    const node = objectYaml(
      "Node",
      "node-1",
      "{}",
      "labels: { topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z, topology.istio.io/subzone: s }",
    );
    const mesh = new Harness().apply(podYaml("a"), node);
    expect(mesh.pod("a").locality).toMatchObject({ region: "r", zone: "z", subzone: "s" });
    mesh.remove(node);
    expect(mesh.pod("a").locality).toBeUndefined();
  });
});

describe("a Service", () => {
  const at = (spec: string) =>
    new Harness()
      .apply(objectYaml("Service", "web", spec))
      .service("shop/web.shop.svc.cluster.local");

  it("of two families has two addresses", () => {
    const found = at("{ clusterIPs: [10.96.0.1, 'fd00::1'], ipFamilies: [IPv4, IPv6] }");
    expect([found.addresses.length, found.ipFamilies]).toEqual([2, 3]);
  });

  it.each([
    ["[IPv4]", 1],
    ["[IPv6]", 2],
    ["[]", 0],
  ])("of families %s says so as %d", (families, expected) => {
    expect(at(`{ clusterIP: 10.96.0.1, ipFamilies: ${families} }`).ipFamilies).toBe(expected);
  });

  it("that is headless has none, and its pods all the same", () => {
    const mesh = new Harness().apply(
      serviceYaml("web").replace("clusterIP: 10.96.0.1", "clusterIP: None"),
      podYaml("a"),
    );
    expect(mesh.service("shop/web.shop.svc.cluster.local").addresses).toEqual([]);
    expect(Object.keys(mesh.pod("a").services)).toEqual(["shop/web.shop.svc.cluster.local"]);
  });

  it("that is an alias (ExternalName) is no service of the mesh: DNS answers for it", () => {
    const alias = objectYaml(
      "Service",
      "web",
      "{ type: ExternalName, externalName: h.test, selector: { app: a } }",
    );
    const mesh = new Harness().apply(alias, podYaml("a"));
    expect(mesh.addresses).toEqual(["Kubernetes//Pod/shop/a"]);
    expect(mesh.pod("a").services).toEqual({});
    mesh.apply(serviceYaml("web"));
    expect(Object.keys(mesh.pod("a").services)).toEqual(["shop/web.shop.svc.cluster.local"]);
    mesh.apply(alias);
    expect(mesh.pod("a").services).toEqual({});
  });

  it("finds a named port in containers and native sidecars, of TCP only, or leaves it out", () => {
    const ports = (yaml: string) =>
      Object.values(new Harness().apply(serviceYaml("web"), yaml).pod("a").services)[0]?.ports;
    expect(ports(podYaml("a"))).toMatchObject([{ servicePort: 80, targetPort: 8080 }]);
    expect(ports(podYaml("a").replace("name: web", "name: other"))).toEqual([]);
    expect(ports(podYaml("a").replace("name: web", "protocol: UDP, name: web"))).toEqual([]);
    const sidecar = (policy: string) =>
      podYaml("a").replace(
        "containers: [{ name: c, ports: [{ name: web, containerPort: 8080 }] }]",
        `containers: [{ name: c }]\n  initContainers: [{ name: s, ${policy} ports: [{ name: web, containerPort: 9090 }] }]`,
      );
    expect(ports(sidecar("restartPolicy: Always,"))).toMatchObject([{ targetPort: 9090 }]);
    expect(ports(sidecar(""))).toEqual([]);
  });
});
