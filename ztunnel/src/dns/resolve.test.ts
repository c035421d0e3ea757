import { describe, expect, it } from "vitest";
import { IPFamilies, Service_Visibility } from "@ambit/api/gen/istio/workload_pb.ts";
import { podSearchDomains } from "./names.ts";
import { resolveLocally } from "./resolve.ts";
import { serves, TestMesh } from "../state/testing-mesh.ts";

function mesh(): TestMesh {
  return new TestMesh()
    .workload("client", ["10.0.0.1"])
    .service("web", ["10.96.0.1"])
    .service("dual", ["10.96.0.2", "fd96::2"])
    .service("headless", [])
    .workload("h1", ["10.0.0.11", "fd00::11"], { services: serves("headless") })
    .workload("h2", ["10.0.0.12"], { services: serves("headless") })
    .service("other", ["10.96.0.3"], { namespace: "far", hostname: "other.far.svc.cluster.local" })
    .service("wild", ["10.96.0.4"], { hostname: "*.example.com" })
    .service("deep", ["10.96.0.5"], { hostname: "*.deep.example.com" })
    .service("external", ["240.240.0.1"], { hostname: "api.example.org" })
    .service("external-headless", [], { hostname: "none.example.org" })
    .service("hidden", ["10.96.0.6"], {
      namespace: "far",
      hostname: "hidden.example.org",
      visibility: Service_Visibility.NAMESPACE,
    })
    .service("elsewhere", [], {
      hostname: "elsewhere.example.org",
      addresses: [{ network: "n2", address: Uint8Array.of(10, 96, 0, 7) }],
    })
    .service("six", ["10.96.0.8", "fd96::8"], { ipFamilies: IPFamilies.IPV6_ONLY });
}

function ask(name: string, family: 4 | 6 = 4) {
  const state = mesh();
  const answer = resolveLocally(state.state, {
    name,
    family,
    client: state.get("client"),
    clusterDomain: "cluster.local",
    searchDomains: podSearchDomains("ns", "cluster.local"),
    preferredNamespace: "preferred",
    ipv6: true,
    random: () => 0.5,
  });
  return answer && { ...answer, addresses: [...answer.addresses].sort() };
}

describe("what the mesh answers by itself", () => {
  it.each<[string, 4 | 6, string[]]>([
    ["web", 4, ["10.96.0.1"]],
    ["web.ns", 4, ["10.96.0.1"]],
    ["web.ns.svc", 4, ["10.96.0.1"]],
    ["web.ns.svc.cluster.local", 4, ["10.96.0.1"]],
    ["web", 6, []],
    ["dual", 6, ["fd96::2"]],
    ["headless", 4, ["10.0.0.11", "10.0.0.12"]],
    ["headless", 6, ["fd00::11"]],
    ["other.far", 4, ["10.96.0.3"]],
    ["a.example.com", 4, ["10.96.0.4"]],
    ["a.b.example.com", 4, ["10.96.0.4"]],
    ["x.deep.example.com", 4, ["10.96.0.5"]],
    ["api.example.org", 4, ["240.240.0.1"]],
    ["api.example.org", 6, []],
    ["elsewhere.example.org", 4, []],
    ["six", 4, []],
    ["six", 6, ["fd96::8"]],
  ])("%s (IPv%i): %j", (name, family, addresses) => {
    expect(ask(name, family)).toEqual({ addresses });
  });

  it.each([
    "other",
    "unknown.example",
    "h1.headless.ns.svc.cluster.local",
    "none.example.org",
    "hidden.example.org",
    "example.com",
  ])("%s is not ours: it is forwarded", (name) => expect(ask(name)).toBeUndefined());

  it("leads by CNAME from a name with a search domain, but not for a wildcard", () => {
    expect(ask("api.example.org.ns.svc.cluster.local")).toEqual({
      addresses: ["240.240.0.1"],
      canonicalName: "api.example.org",
    });
    expect(ask("a.example.com.ns.svc.cluster.local")).toEqual({ addresses: ["10.96.0.4"] });
  });
});
