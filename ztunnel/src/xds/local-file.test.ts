import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { UserError } from "@ambit/common/process/errors.ts";
import { dumpState } from "../state/dump.ts";
import { MeshState } from "../state/mesh-state.ts";
import { parseLocalMesh, readLocalMesh } from "./local-file.ts";

const MESH = `
workloads:
- uid: cluster1//v1/Pod/ns/client
  name: client
  namespace: ns
  serviceAccount: client-sa
  workloadIps: [10.0.0.1, "fd00::1"]
  protocol: HBONE
  node: node-1
  network: net
  locality: { region: r, zone: z }
  networkMode: HostNetwork
  workloadType: pod
  capacity: 3
  waypoint: { destination: ns/waypoint.ns.svc.cluster.local, hboneMtlsPort: 15008 }
  networkGateway: { destination: net/10.0.0.9 }
  applicationTunnel: { protocol: PROXY, port: 15088 }
  authorizationPolicies: [ns/deny]
  services: { ns/web.ns.svc.cluster.local: { 80: 8080 } }
services:
- name: web
  namespace: ns
  hostname: web.ns.svc.cluster.local
  vips: [net/10.96.0.1]
  ports: { 80: 8080 }
  subjectAltNames: ["spiffe://cluster.local/ns/ns/sa/client-sa"]
  loadBalancer: { mode: Failover, routingPreferences: [Network, Region], healthPolicy: AllowAll }
  ipFamilies: Dual
  canonical: true
  visibility: Namespace
  waypoint: { destination: /10.96.0.7 }
policies:
- name: deny
  namespace: ns
  scope: WorkloadSelector
  action: Deny
  rules:
  - - - principals: [{ Exact: cluster.local/ns/ns/sa/client-sa }, { Prefix: a }, { Suffix: b }, Presence]
        notDestinationPorts: [80]
        sourceIps: [10.0.0.0/8]
`;

/** The mesh as a worker would hold it. */
function load(text: string): MeshState {
  const { addresses, authorizations } = parseLocalMesh(text);
  const state = new MeshState();
  expect(state.applyAuthorizations({ upserts: authorizations, removed: [] })).toEqual([]);
  expect(state.applyAddresses({ upserts: addresses, removed: [] })).toEqual([]);
  return state;
}

describe("the local mesh file", () => {
  it("becomes the same state that xDS would have made", () => {
    expect(dumpState(load(MESH))).toMatchObject({
      workloads: [
        {
          uid: "cluster1//v1/Pod/ns/client",
          workloadIps: ["10.0.0.1", "fd00::1"],
          protocol: "HBONE",
          network: "net",
          locality: { region: "r", zone: "z", subzone: "" },
          networkMode: "HostNetwork",
          workloadType: "pod",
          capacity: 3,
          trustDomain: "cluster.local",
          waypoint: { destination: "ns/waypoint.ns.svc.cluster.local", hboneMtlsPort: 15_008 },
          networkGateway: { destination: "net/10.0.0.9", hboneMtlsPort: 15_008 },
          applicationTunnel: { protocol: "PROXY", port: 15_088 },
          authorizationPolicies: ["ns/deny"],
        },
      ],
      services: [
        {
          hostname: "web.ns.svc.cluster.local",
          vips: ["net/10.96.0.1"],
          ports: { 80: 8080 },
          endpoints: { "cluster1//v1/Pod/ns/client": { port: { 80: 8080 } } },
          loadBalancer: {
            mode: "failover",
            routingPreferences: ["network", "region"],
            healthPolicy: "AllowAll",
          },
          ipFamilies: ["IPv4", "IPv6"],
          canonical: true,
          visibility: "Namespace",
          waypoint: { destination: "/10.96.0.7" },
        },
      ],
      policies: [{ key: "ns/deny", scope: "WorkloadSelector", action: "Deny" }],
    });
  });

  it("may be empty", () => {
    expect(dumpState(load(""))).toMatchObject({ workloads: [], services: [], policies: [] });
  });
});

/** text, what the message must say. */
const BAD: readonly [string, RegExp][] = [
  ["workloads: [{ uid: a, name: a, workloadIp: 1.2.3.4 }]", /workloadIp/],
  ["workload: []", /workload/],
  ["workloads: [{ uid: a, name: a, workloadIps: [300.1.1.1] }]", /300\.1\.1\.1/],
  ["workloads: [{ uid: a, name: a, protocol: LEGACY }]", /protocol/],
  ["workloads: [{ uid: a, name: a, services: { ns/x: { http: 80 } } }]", /services\[/],
  ["services: [{ name: a, namespace: b, hostname: c, ports: { 80: 65536 } }]", /ports/],
  ["policies: [{ name: a, namespace: b, scope: Mesh, action: Allow }]", /scope/],
  ["policies: [{ name: a, namespace: b, scope: Global, action: Audit }]", /action/],
  [
    "policies: [{ name: a, namespace: b, scope: Global, action: Allow, rules: [[[{ sourceIps: [x] }]]] }]",
    /"x" is not a CIDR/,
  ],
  ["workloads: [", /LOCAL_XDS/],
];

describe("a bad local mesh file", () => {
  it.each(BAD)("%j is refused with the reason", (text, reason) => {
    const read = () => readLocalMesh({ localXds: text, localXdsPath: undefined });
    expect(read).toThrow(UserError);
    expect(read).toThrow(reason);
  });

  it("is named with its path", () => {
    const folder = mkdtempSync(join(tmpdir(), "ambit-local-"));
    const localXdsPath = join(folder, "mesh.yaml");
    const read = () => readLocalMesh({ localXdsPath, localXds: undefined });
    expect(read).toThrow(localXdsPath);
    writeFileSync(localXdsPath, "nothing: here");
    expect(read).toThrow(localXdsPath);
    rmSync(folder, { recursive: true });
  });
});
