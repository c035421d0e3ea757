import { describe, expect, it } from "vitest";
import type { WorkloadSchema, ServiceSchema } from "@ambit/api/gen/istio/workload_pb.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { parseIp } from "@ambit/common/net/ip.ts";
import { bytes, TestMesh } from "../state/testing-mesh.ts";
import { HbonePeer, relayTo } from "../testing/hbone-peer.ts";
import { CLIENT_IP, OutboundLab, portOf } from "../testing/outbound-lab.ts";
import type { NameLookup } from "./host-names.ts";

const DIALED = "127.0.0.2";
const WAYPOINT_VIP = "10.96.0.9";
const WAYPOINT_HOST = "gate.ns.svc.cluster.local";
const WAYPOINT_PORT = 15_008;

type Workload = MessageInitShape<typeof WorkloadSchema>;
type Reference = NonNullable<MessageInitShape<typeof ServiceSchema>["waypoint"]>;

const byAddress = (ip: string, hboneMtlsPort = WAYPOINT_PORT): Reference => ({
  destination: { case: "address", value: { address: bytes(ip) } },
  hboneMtlsPort,
});
const byHostname = (hostname: string, hboneMtlsPort = WAYPOINT_PORT): Reference => ({
  destination: { case: "hostname", value: { namespace: "ns", hostname } },
  hboneMtlsPort,
});

interface Place {
  /** The waypoint's own address; none: only DNS knows it. */
  readonly ip: string;
  readonly known: "address" | "name";
  readonly changes?: Workload;
}

const POD: Place = { ip: "127.0.0.3", known: "address" };
const V6: Place = { ip: "::1", known: "address" };
const NAMED: Place = {
  ip: "127.0.0.3",
  known: "name",
  changes: { hostname: "waypoint.example" },
};

/** A waypoint that accepts and echoes, in a mesh where `gate` is its service. */
async function setUp({ ip, known, changes = {} }: Place) {
  const mesh = new TestMesh().workload("client", [CLIENT_IP]).workload("waypoint", []);
  const lookup: NameLookup = async (name) => {
    if (name !== "waypoint.example") throw new Error("no such name");
    return { ips: [parseIp(ip)!], ttlSeconds: 60 };
  };
  const lab = new OutboundLab(mesh, {}, { lookup });
  const [destination, echo] = [await lab.destination(DIALED), await lab.echo("127.0.0.1")];
  const toEcho = relayTo(portOf(echo), "127.0.0.1");
  const peer = await HbonePeer.listen(ip, lab.certificate("waypoint"), toEcho);
  const ports = [{ servicePort: WAYPOINT_PORT, targetPort: peer.port }];
  mesh
    .workload("waypoint", known === "address" ? [ip] : [], {
      services: { [`ns/${WAYPOINT_HOST}`]: { ports } },
      ...changes,
    })
    .service("gate", [WAYPOINT_VIP], { ports });
  const dispose = () => {
    lab[Symbol.dispose]();
    peer[Symbol.dispose]();
  };
  return { lab, mesh, destination, peer, dispose };
}

type Attach = "service" | "workload";
type Refer = (port: number) => Reference;

/** What the waypoint is named by, where it is. */
const REFERENCES: readonly [string, Place, Refer][] = [
  ["its pod's address", POD, (port) => byAddress(POD.ip, port)],
  ["its service's address, which maps the port", POD, () => byAddress(WAYPOINT_VIP)],
  ["its service's hostname, which maps the port", POD, () => byHostname(WAYPOINT_HOST)],
  [
    "its pod's hostname",
    { ...POD, changes: { hostname: "pod.example" } },
    (port) => byHostname("pod.example", port),
  ],
  ["an address of the other family", V6, (port) => byAddress(V6.ip, port)],
  ["a hostname whose only endpoint is of the other family", V6, () => byHostname(WAYPOINT_HOST)],
  ["a service whose endpoint only DNS can find", NAMED, () => byHostname(WAYPOINT_HOST)],
  ["a workload that only DNS can find", NAMED, (port) => byHostname("waypoint.example", port)],
];

function attached(attach: Attach, mesh: TestMesh, port: number, waypoint: Reference): void {
  if (attach === "workload") mesh.workload("web", [DIALED], { waypoint });
  else mesh.service("web", [DIALED], { ports: [{ servicePort: port, targetPort: 80 }], waypoint });
}

describe.each<Attach>(["service", "workload"])("the waypoint of a %s", (attach) => {
  it.each(REFERENCES)("is reached when it is named by %s", async (_, place, refer) => {
    const { lab, mesh, destination, peer, dispose } = await setUp(place);
    attached(attach, mesh, portOf(destination), refer(peer.port));
    expect(await lab.talk(destination, "hello")).toBe("hello");
    const authority = `${DIALED}:${portOf(destination)}`;
    expect(peer.requests).toMatchObject([{ authority, peer: lab.identity("client") }]);
    expect(lab.lines()).toMatchObject([
      { level: "info", "dst.hbone_addr": authority, "dst.workload": "waypoint", path: "hbone" },
    ]);
    dispose();
  });

  it("counts the names that it looks up", async () => {
    const { lab, mesh, destination, dispose } = await setUp(NAMED);
    attached(attach, mesh, portOf(destination), byHostname(WAYPOINT_HOST));
    await lab.talk(destination, "one");
    await lab.talk(destination, "two");
    const labels = { hostname: "waypoint.example", source_principal: lab.identity("client") };
    expect(lab.context.onDemandDns.collect()).toMatchObject([
      { name: "istio_on_demand_dns", values: [{ labels, value: 2 }] },
    ]);
    dispose();
  });

  it.each<[string, Reference]>([
    ["an address nobody has", byAddress("10.9.9.9")],
    ["a hostname nobody has", byHostname("ghost.example")],
    [
      "a service of another namespace",
      {
        destination: { case: "hostname", value: { namespace: "other", hostname: WAYPOINT_HOST } },
        hboneMtlsPort: WAYPOINT_PORT,
      },
    ],
    ["a port that its service lacks", byHostname(WAYPOINT_HOST, 15_021)],
  ])("is not bypassed when it is named by %s", async (_, reference) => {
    const { lab, mesh, destination, peer, dispose } = await setUp(POD);
    attached(attach, mesh, portOf(destination), reference);
    expect(await lab.talk(destination, "hello")).toBe("");
    expect(peer.requests).toEqual([]);
    expect(lab.lines()).toMatchObject([
      {
        reason: "UNKNOWN_WAYPOINT",
        error: expect.stringMatching(/^unknown waypoint \S+: /) as string,
      },
    ]);
    dispose();
  });

  it("is not bypassed when its name does not resolve", async () => {
    const { lab, mesh, destination, dispose } = await setUp(POD);
    mesh.workload("waypoint", [], { hostname: "ghost.example" });
    attached(attach, mesh, portOf(destination), byHostname("ghost.example"));
    expect(await lab.talk(destination, "hello")).toBe("");
    expect(lab.lines()).toMatchObject([{ reason: "CONNECT_FAILED" }]);
    dispose();
  });
});

describe("a service's waypoints by weight", () => {
  it("share its connections", async () => {
    const { lab, mesh, destination, peer, dispose } = await setUp(POD);
    const other = await HbonePeer.listen(
      "127.0.0.4",
      lab.certificate("waypoint"),
      relayTo(portOf(await lab.echo("127.0.0.5")), "127.0.0.5"),
    );
    mesh.workload("canary", ["127.0.0.4"], { serviceAccount: "waypoint" });
    mesh.service("web", [DIALED], {
      ports: [{ servicePort: portOf(destination), targetPort: 80 }],
      weightedWaypoints: [
        { destination: byAddress("127.0.0.3", peer.port), weight: 75 },
        { destination: byAddress("127.0.0.4", other.port), weight: 25 },
      ],
    });
    for (const random of [0, 0.3, 0.74, 0.8]) {
      lab.random = random;
      expect(await lab.talk(destination, "hello")).toBe("hello");
    }
    expect([peer.requests.length, other.requests.length]).toEqual([3, 1]);
    other[Symbol.dispose]();
    dispose();
  });
});
