import { describe, expect, it } from "vitest";
import { gateway } from "../testing/gateway-yaml.ts";
import { MeshHarness as Harness, objectYaml, podYaml } from "../testing/mesh-harness.ts";

describe("a gateway to another network", () => {
  const remote = (addresses = "[{ type: IPAddress, value: 203.0.113.7 }]", kind = "istio-remote") =>
    gateway("gw", "shop", { labels: "topology.istio.io/network: far", addresses, kind });
  const vm = (network: string) =>
    objectYaml("WorkloadEntry", "vm", `{ address: 192.0.2.1, network: ${network} }`);
  const VM = "networking.istio.io/WorkloadEntry/shop/vm";

  it("is a workload, and the way to the workloads there", () => {
    const mesh = new Harness().apply(vm("far"), podYaml("a"), remote());
    const uid = "NetworkGateway/far/203.0.113.7/15008";
    expect(mesh.address(uid)).toMatchObject({
      case: "workload",
      value: { network: "far", namespace: "shop", serviceAccount: "gw-istio-remote" },
    });
    expect(mesh.workload(VM).networkGateway).toMatchObject({
      destination: { case: "address", value: { network: "far" } },
      hboneMtlsPort: 15_008,
    });
    expect(mesh.pod("a").networkGateway).toBeUndefined();
    mesh.apply(vm("near"));
    expect(mesh.workload(VM).networkGateway).toBeUndefined();
    mesh.apply(vm("far")).remove(remote());
    expect(mesh.workload(VM).networkGateway).toBeUndefined();
    expect(mesh.resource(uid)).toBeUndefined();
  });

  it("may have a name instead of an address", () => {
    const mesh = new Harness().apply(vm("far"), remote("[{ type: Hostname, value: far.test }]"));
    expect(mesh.address("NetworkGateway/far/far.test/15008")).toMatchObject({
      value: { hostname: "far.test", addresses: [] },
    });
    expect(mesh.workload(VM).networkGateway?.destination).toMatchObject({
      case: "hostname",
      value: { namespace: "shop", hostname: "far.test" },
    });
  });

  it("is not the cluster's own east-west gateway, whose door is for others", () => {
    const own = "[{ type: IPAddress, value: 203.0.113.7 }]";
    const mesh = new Harness().apply(vm("far"), remote(own, "istio-east-west"));
    expect(mesh.addresses).toEqual([`Kubernetes/${VM}`]);
    expect(mesh.workload(VM).networkGateway).toBeUndefined();
  });
});
