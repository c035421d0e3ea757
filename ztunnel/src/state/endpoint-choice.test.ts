import { describe, expect, it } from "vitest";
import {
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  WorkloadStatus,
} from "@ambit/api/gen/istio/workload_pb.ts";
import { parseIp } from "@ambit/common/net/ip.ts";
import { seededRandom } from "@ambit/common/testing/fuzz-input.ts";
import { chooseEndpoint, type EndpointQuery } from "./endpoint-choice.ts";
import { serves, TestMesh } from "./testing-mesh.ts";

const { REGION, ZONE, SUBZONE, NODE, CLUSTER, NETWORK } = LoadBalancing_Scope;
const { FAILOVER, STRICT, UNSPECIFIED_MODE } = LoadBalancing_Mode;

/** "network/region/zone/subzone/node/cluster"; what is left out is empty. */
function place(text: string) {
  const [network, region, zone, subzone, node, clusterId] = text.split("/");
  return {
    network: network ?? "",
    locality: { region: region ?? "", zone: zone ?? "", subzone: subzone ?? "" },
    node: node ?? "",
    clusterId: clusterId ?? "",
  };
}

interface Balancing {
  readonly mode: LoadBalancing_Mode;
  readonly routingPreference?: LoadBalancing_Scope[];
}

/** A client at n/r/z/s/node/c, and a service `web` whose endpoints are named by where they are. */
function build(loadBalancing: Balancing, ...endpoints: string[]): TestMesh {
  const mesh = new TestMesh()
    .workload("client", ["10.0.0.1"], place("n/r/z/s/node/c"))
    .service("web", ["10.96.0.1"], { loadBalancing });
  endpoints.forEach((text, index) =>
    mesh.workload(text, [`10.0.1.${index + 1}`], { ...place(text), services: serves("web") }),
  );
  return mesh;
}

function choose(mesh: TestMesh, random: number, query: Partial<EndpointQuery> = {}) {
  const stored = mesh.state.services.byKey("ns/web.ns.svc.cluster.local")!;
  const wanted = { source: mesh.get("client"), servicePort: 80, family: 4 as const, ...query };
  return chooseEndpoint(stored, wanted, () => random);
}

/** The names of all that may be chosen. */
function choices(mesh: TestMesh): string[] {
  const randoms = Array.from({ length: 64 }, (_, i) => i / 64);
  const names = randoms.map((random) => choose(mesh, random)?.workload.name ?? "none");
  return [...new Set(names)].toSorted();
}

describe("endpoints by their place", () => {
  it.each<[string, Balancing, string[], string[]]>([
    [
      "are all equal without a mode",
      { mode: UNSPECIFIED_MODE, routingPreference: [REGION] },
      ["n/r", "n/other"],
      ["n/other", "n/r"],
    ],
    [
      "are not there in strict mode when none matches",
      { mode: STRICT, routingPreference: [NETWORK, REGION] },
      ["n/other", "far/r"],
      ["none"],
    ],
    [
      "are those that match every scope in strict mode",
      { mode: STRICT, routingPreference: [REGION, ZONE, SUBZONE, NODE, CLUSTER, NETWORK] },
      ["n/r/z/s/node/c", "n/r/z/s/node/other", "n/r/z/s/other/c", "far/r/z/s/node/c"],
      ["n/r/z/s/node/c"],
    ],
    [
      "fail over by network, region and zone",
      { mode: FAILOVER, routingPreference: [NETWORK, REGION, ZONE] },
      ["n/r/z", "n/r/other", "n/other/z", "far/r/z"],
      ["n/r/z"],
    ],
    [
      "fail over by network and region, whatever the zone",
      { mode: FAILOVER, routingPreference: [NETWORK, REGION] },
      ["n/r/z", "n/r/other", "n/other/z", "far/r/z"],
      ["n/r/other", "n/r/z"],
    ],
    [
      "fail over to the network, whatever the region",
      { mode: FAILOVER, routingPreference: [NETWORK, REGION] },
      ["n/other/z", "n/another/z", "far/r/z"],
      ["n/another/z", "n/other/z"],
    ],
    [
      "of other networks are still told apart by region and zone",
      { mode: FAILOVER, routingPreference: [NETWORK, REGION, ZONE] },
      ["far/r/z", "far/r/other", "farther/other/z"],
      ["far/r/z"],
    ],
    [
      "fail over by region and zone across networks",
      { mode: FAILOVER, routingPreference: [REGION, ZONE] },
      ["n/other/z", "far/r/z", "n/r/other"],
      ["far/r/z"],
    ],
    [
      "do not gain from a later scope once an earlier one differs",
      { mode: FAILOVER, routingPreference: [REGION, ZONE, NODE] },
      ["n/other/z/s/node", "n/r/other"],
      ["n/r/other"],
    ],
    [
      "match where both have no value",
      { mode: FAILOVER, routingPreference: [NETWORK] },
      ["n", "far"],
      ["n"],
    ],
  ])("%s", (_, balancing, endpoints, expected) => {
    expect(choices(build(balancing, ...endpoints))).toEqual(expected);
  });

  it("of another network are chosen only while no local one is healthy", () => {
    const balancing = { mode: FAILOVER, routingPreference: [NETWORK] };
    const mesh = build(balancing, "n/r", "far/r");
    expect(choices(mesh)).toEqual(["n/r"]);
    const local = { ...place("n/r"), services: serves("web") };
    mesh.workload("n/r", ["10.0.1.1"], { ...local, status: WorkloadStatus.UNHEALTHY });
    expect(choices(mesh)).toEqual(["far/r"]);
    mesh.workload("n/r", ["10.0.1.1"], local);
    expect(choices(mesh)).toEqual(["n/r"]);
  });
});

describe("endpoints that cannot be reached", () => {
  const gateway = {
    destination: { case: "hostname" as const, value: { namespace: "ns", hostname: "gate" } },
    hboneMtlsPort: 15_009,
  };
  interface Reach {
    readonly networkGateway?: typeof gateway;
    readonly hostname?: string;
    readonly capacity?: number;
  }
  const onlyAt = (text: string, more: Reach = {}) => {
    const mesh = build({ mode: UNSPECIFIED_MODE });
    return mesh.workload("a", [], { ...place(text), services: serves("web"), ...more });
  };

  it.each<[string, TestMesh, string[]]>([
    ["without address or hostname, are never chosen", onlyAt("n"), ["none"]],
    ["on our network, not even with a gateway", onlyAt("n", { networkGateway: gateway }), ["none"]],
    ["on another network, not without a gateway", onlyAt("far"), ["none"]],
    [
      "on another network, with a gateway they are",
      onlyAt("far", { networkGateway: gateway }),
      ["a"],
    ],
    ["but have a hostname are chosen", onlyAt("n", { hostname: "a.example" }), ["a"]],
    ["with no capacity are never chosen", onlyAt("n", { hostname: "a", capacity: 0 }), ["none"]],
  ])("%s", (_, mesh, expected) => {
    expect(choices(mesh)).toEqual(expected);
  });
});

describe("a service's connections", () => {
  it("spread over its endpoints by capacity", () => {
    const mesh = build({ mode: UNSPECIFIED_MODE }, "one", "two", "three");
    mesh.workload("three", ["10.0.1.3"], {
      ...place("three"),
      services: serves("web"),
      capacity: 2,
    });
    const random = seededRandom(1);
    const counts: Record<string, number> = {};
    for (let i = 0; i < 4_000; i++) {
      const { name } = choose(mesh, random())!.workload;
      counts[name] = (counts[name] ?? 0) + 1;
    }
    for (const [name, share] of [
      ["one", 1_000],
      ["two", 1_000],
      ["three", 2_000],
    ] as const) {
      expect(Math.abs(counts[name]! - share)).toBeLessThan(150);
    }
  });

  it("go to the address that was dialed when it is the chosen workload's own", () => {
    const mesh = build({ mode: UNSPECIFIED_MODE });
    mesh.workload("a", ["10.0.1.1", "10.0.1.2"], { ...place("n"), services: serves("web") });
    expect(choose(mesh, 0)?.ip).toBe("10.0.1.1");
    expect(choose(mesh, 0, { dialedIp: parseIp("10.0.1.2")! })?.ip).toBe("10.0.1.2");
    expect(choose(mesh, 0, { dialedIp: parseIp("10.96.0.1")! })?.ip).toBe("10.0.1.1");
  });
});

describe("the port", () => {
  /** Port of the service, port that the endpoint maps, application tunnel's port; and what is called. */
  it.each<[string, number | undefined, number | undefined, number | undefined, boolean, unknown]>([
    ["is what the endpoint maps", 8080, 9090, undefined, false, 9090],
    [
      "is what the service says when the endpoint says nothing",
      8080,
      undefined,
      undefined,
      false,
      8080,
    ],
    [
      "is none when it is a name that the endpoint does not map",
      0,
      undefined,
      undefined,
      false,
      undefined,
    ],
    ["is none when the service lacks it", undefined, 9090, undefined, false, undefined],
    [
      "of a waypoint is what its pod maps, though its service lacks it",
      undefined,
      9090,
      undefined,
      true,
      9090,
    ],
    [
      "of a waypoint is the asked one when it has an application tunnel",
      undefined,
      undefined,
      15_088,
      true,
      80,
    ],
    ["of a waypoint is none otherwise", undefined, undefined, undefined, true, undefined],
  ])("%s", (_, servicePort, endpointPort, tunnelPort, forWaypoint, expected) => {
    const of = (targetPort: number | undefined) =>
      targetPort === undefined ? [] : [{ servicePort: 80, targetPort }];
    const mesh = build({ mode: UNSPECIFIED_MODE });
    mesh.service("web", ["10.96.0.1"], { ports: of(servicePort) });
    mesh.workload("a", ["10.0.1.1"], {
      services: { "ns/web.ns.svc.cluster.local": { ports: of(endpointPort) } },
      ...(tunnelPort !== undefined && { applicationTunnel: { port: tunnelPort } }),
    });
    expect(choose(mesh, 0, { forWaypoint })?.port).toBe(expected);
  });
});
