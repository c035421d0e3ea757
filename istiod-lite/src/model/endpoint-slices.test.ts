import { describe, expect, it } from "vitest";
import { NetworkMode, TunnelProtocol, WorkloadStatus } from "@ambit/api/gen/istio/workload_pb.ts";
import { MeshHarness, podYaml, serviceYaml } from "../testing/mesh-harness.ts";

const WEB = "shop/web.shop.svc.cluster.local";
const UID = "discovery.k8s.io/EndpointSlice/shop/web-1";
const selectorless = serviceYaml("web", "clusterIPs: [10.96.0.1]");

interface Slice {
  readonly endpoints: string;
  readonly name?: string;
  readonly service?: string;
  readonly type?: string;
  readonly ports?: string;
}

const slice = ({
  endpoints,
  name = "web-1",
  service = "{ kubernetes.io/service-name: web }",
  type = "IPv4",
  ports = "[{ name: http, port: 8081 }]",
}: Slice) => `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: ${name}, namespace: shop, labels: ${service} }
addressType: ${type}
ports: ${ports}
endpoints: [${endpoints}]
---`;

describe("an endpoint without a pod", () => {
  it("is a workload of which only the address, the service and the health are known", () => {
    const mesh = new MeshHarness().apply(
      selectorless,
      slice({ endpoints: "{ addresses: [10.1.2.3] }" }),
    );
    expect(mesh.workload(`${UID}/10.1.2.3`)).toMatchObject({
      name: "web-1",
      namespace: "shop",
      addresses: [Uint8Array.of(10, 1, 2, 3)],
      serviceAccount: "",
      tunnelProtocol: TunnelProtocol.NONE,
      networkMode: NetworkMode.HOST_NETWORK,
      status: WorkloadStatus.HEALTHY,
      authorizationPolicies: [],
      services: { [WEB]: { ports: [{ servicePort: 80, targetPort: 8081 }] } },
    });
    expect(mesh.resource(`Kubernetes/${UID}/10.1.2.3`)?.aliases).toEqual(["/10.1.2.3"]);
  });

  it.each([
    ["says that it is ready", "conditions: { ready: true }", WorkloadStatus.HEALTHY],
    ["does not say", "conditions: {}", WorkloadStatus.HEALTHY],
    ["says that it is not ready", "conditions: { ready: false }", WorkloadStatus.UNHEALTHY],
  ])("that %s has this health", (_, conditions, status) => {
    const endpoints = `{ addresses: [10.1.2.3], ${conditions} }`;
    const mesh = new MeshHarness().apply(selectorless, slice({ endpoints }));
    expect(mesh.workload(`${UID}/10.1.2.3`).status).toBe(status);
  });

  it.each<[string, Slice, string]>([
    ["no service has it", { endpoints: "{ addresses: [10.1.2.3] }" }, ""],
    [
      "its slice is of no service",
      { endpoints: "{ addresses: [10.1.2.3] }", service: "{}" },
      selectorless,
    ],
    ["it is a name", { endpoints: "{ addresses: [web.test] }", type: "FQDN" }, selectorless],
    ["it has no address", { endpoints: "{ addresses: [] }" }, selectorless],
    ["its address is none", { endpoints: "{ addresses: [web.test] }" }, selectorless],
    [
      "its service is an alias",
      { endpoints: "{ addresses: [10.1.2.3] }" },
      serviceYaml("web", "type: ExternalName, externalName: x.test"),
    ],
  ])("is none of the mesh when %s", (_, endpoints, service) => {
    const mesh = new MeshHarness().apply(service, slice(endpoints));
    expect(mesh.addresses.filter((name) => name.includes("EndpointSlice"))).toEqual([]);
  });

  it("is there once when its slice names it twice", () => {
    const endpoints = "{ addresses: [10.1.2.3] }, { addresses: [10.1.2.3] }";
    const mesh = new MeshHarness().apply(selectorless, slice({ endpoints }));
    expect(mesh.addresses).toHaveLength(2);
  });

  it("has no port that its slice does not name", () => {
    const service = serviceYaml("web").replace(
      "targetPort: web }",
      "targetPort: 1 }, { name: grpc, port: 90 }, { name: dns, port: 53, protocol: UDP }",
    );
    const ports = "[{ name: grpc, port: 9091 }, { name: dns, port: 53, protocol: UDP }]";
    const mesh = new MeshHarness().apply(
      service,
      slice({ endpoints: "{ addresses: [10.1.2.3] }", ports }),
    );
    expect(mesh.workload(`${UID}/10.1.2.3`).services[WEB]?.ports).toMatchObject([
      { servicePort: 90, targetPort: 9091 },
    ]);
  });

  it("follows its service and its slice, and leaves with either", () => {
    const one = slice({ endpoints: "{ addresses: [10.1.2.3] }" });
    const mesh = new MeshHarness().apply(one);
    expect(mesh.addresses).toEqual([]);
    mesh.apply(selectorless);
    expect(mesh.addresses).toHaveLength(2);
    mesh.apply(slice({ endpoints: "{ addresses: [10.1.2.4] }" }));
    expect(mesh.pushed.sort()).toEqual([
      `Kubernetes/${UID}/10.1.2.3`,
      `Kubernetes/${UID}/10.1.2.4`,
    ]);
    mesh.remove(selectorless);
    expect(mesh.addresses).toEqual([]);
    mesh.apply(selectorless).remove(one);
    expect(mesh.addresses).toEqual([WEB]);
  });

  it("of two slices of a service, one per family, is found in both", () => {
    const mesh = new MeshHarness().apply(
      selectorless,
      slice({ endpoints: "{ addresses: [10.1.2.3] }" }),
      slice({ endpoints: "{ addresses: ['fd00::1'] }", name: "web-2", type: "IPv6" }),
    );
    expect(mesh.addresses).toHaveLength(3);
  });
});

describe("a pod that a slice lists", () => {
  const listing = slice({
    endpoints: "{ addresses: [10.0.0.1], targetRef: { kind: Pod, name: a } }",
  });

  it("is an endpoint of a service without selector, at the slice's port", () => {
    const mesh = new MeshHarness().apply(podYaml("a"), selectorless, listing);
    expect(mesh.addresses).toEqual(["Kubernetes//Pod/shop/a", WEB]);
    expect(mesh.pod("a").services[WEB]?.ports).toMatchObject([
      { servicePort: 80, targetPort: 8081 },
    ]);
    mesh.remove(listing);
    expect(mesh.pod("a").services).toEqual({});
  });

  it("is what the selector says it is when there is one", () => {
    const other = serviceYaml("web", "selector: { app: other }");
    const mesh = new MeshHarness().apply(podYaml("a"), other, listing);
    expect(mesh.pod("a").services).toEqual({});
    mesh.apply(selectorless);
    expect(Object.keys(mesh.pod("a").services)).toEqual([WEB]);
    mesh.apply(serviceYaml("web"));
    expect(mesh.pod("a").services[WEB]?.ports).toMatchObject([{ targetPort: 8080 }]);
  });

  it("costs no translation when its service selects it", () => {
    const mesh = new MeshHarness().apply(podYaml("a"), serviceYaml("web"), listing);
    const before = mesh.model.translations;
    mesh.apply(listing.replace("10.0.0.1", "10.0.0.2"));
    expect(mesh.model.translations - before).toBe(1);
    expect(mesh.pushed).toEqual([]);
  });
});

describe("a service that publishes addresses that are not ready", () => {
  it("lets clients use every endpoint; their health is told all the same", () => {
    const mesh = new MeshHarness().apply(
      podYaml("a").replace('"True"', '"False"'),
      serviceYaml("web", "selector: { app: a }, publishNotReadyAddresses: true"),
    );
    expect(mesh.service(WEB).loadBalancing).toMatchObject({ healthPolicy: 1, mode: 0 });
    expect(mesh.pod("a").status).toBe(WorkloadStatus.UNHEALTHY);
  });
});
