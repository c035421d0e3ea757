import { describe, expect, it } from "vitest";
import { Action, Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import { ApplicationTunnel_Protocol, WorkloadStatus } from "@ambit/api/gen/istio/workload_pb.ts";
import { dumpState } from "./dump.ts";
import { bytes, serves, TestMesh } from "./testing-mesh.ts";

// Field names and forms are istioctl's: `istioctl ztunnel-config` reads this.

const gateway = (ip: string) => ({
  destination: { case: "address" as const, value: { network: "n1", address: bytes(ip) } },
  hboneMtlsPort: 15_008,
});

describe("the dump", () => {
  it("of a workload", () => {
    const mesh = new TestMesh().workload("web", ["10.0.0.1", "fd00::1"], {
      network: "n1",
      clusterId: "c1",
      workloadName: "web",
      canonicalName: "web",
      canonicalRevision: "v1",
      authorizationPolicies: ["ns/strict"],
      services: serves("web"),
      waypoint: gateway("10.0.0.9"),
      applicationTunnel: { protocol: ApplicationTunnel_Protocol.PROXY, port: 15_088 },
      status: WorkloadStatus.UNHEALTHY,
      locality: { region: "r", zone: "z" },
    });
    expect(dumpState(mesh.state).workloads).toMatchObject([
      {
        uid: "c//Pod/ns/web",
        workloadIps: ["10.0.0.1", "fd00::1"],
        protocol: "HBONE",
        name: "web",
        namespace: "ns",
        serviceAccount: "web",
        workloadName: "web",
        workloadType: "deployment",
        canonicalName: "web",
        canonicalRevision: "v1",
        clusterId: "c1",
        trustDomain: "cluster.local",
        locality: { region: "r", zone: "z" },
        node: "node-1",
        network: "n1",
        networkMode: "Standard",
        status: "Unhealthy",
        capacity: 1,
        authorizationPolicies: ["ns/strict"],
        services: ["ns/web.ns.svc.cluster.local"],
        waypoint: { destination: "n1/10.0.0.9", hboneMtlsPort: 15_008 },
      },
    ]);
  });

  it("of a service with its endpoints, and of one that is waited for", () => {
    const mesh = new TestMesh()
      .service("web", ["10.96.0.1"], {
        waypoint: gateway("10.0.0.9"),
        weightedWaypoints: [{ destination: gateway("10.0.0.8"), weight: 10 }],
      })
      .workload("w", ["10.0.0.1"], { services: { ...serves("web"), ...serves("later") } });
    const { services, stagedServices } = dumpState(mesh.state);
    expect(services).toMatchObject([
      {
        name: "web",
        namespace: "ns",
        hostname: "web.ns.svc.cluster.local",
        vips: ["/10.96.0.1"],
        ports: { "80": 8080 },
        endpoints: {
          "c//Pod/ns/w": {
            workloadUid: "c//Pod/ns/w",
            port: { "80": 8080 },
            status: "Healthy",
          },
        },
        canonical: false,
        visibility: "Public",
        waypoint: { destination: "n1/10.0.0.9", hboneMtlsPort: 15_008 },
        weightedWaypoints: [
          { destination: { destination: "n1/10.0.0.8", hboneMtlsPort: 15_008 }, weight: 10 },
        ],
      },
    ]);
    expect(stagedServices).toEqual(["ns/later.ns.svc.cluster.local"]);
  });

  it("of a policy, with its rules as ztunnel writes them", () => {
    const text = (matchType: { case: "exact" | "prefix" | "suffix"; value: string }) => ({
      matchType,
    });
    const mesh = new TestMesh().policy("deny", {
      action: Action.DENY,
      scope: Scope.WORKLOAD_SELECTOR,
      dryRun: true,
      rules: [
        {
          clauses: [
            {
              matches: [
                {
                  namespaces: [text({ case: "exact", value: "a" })],
                  notNamespaces: [text({ case: "prefix", value: "b" })],
                  principals: [text({ case: "suffix", value: "/sa/c" })],
                  notPrincipals: [{ matchType: { case: "presence", value: {} } }],
                  sourceIps: [{ address: bytes("10.0.0.0"), length: 8 }],
                  destinationPorts: [80],
                  notDestinationPorts: [81],
                  serviceAccounts: [{ namespace: "ns", serviceAccount: "d" }],
                },
              ],
            },
          ],
        },
      ],
    });
    expect(dumpState(mesh.state).policies).toEqual([
      {
        key: "ns/deny",
        name: "deny",
        namespace: "ns",
        scope: "WorkloadSelector",
        action: "Deny",
        dryRun: true,
        rules: [
          [
            [
              {
                namespaces: [{ Exact: "a" }],
                notNamespaces: [{ Prefix: "b" }],
                principals: [{ Suffix: "/sa/c" }],
                notPrincipals: [{ Presence: [] }],
                sourceIps: ["10.0.0.0/8"],
                destinationPorts: [80],
                notDestinationPorts: [81],
                serviceAccounts: [{ namespace: "ns", serviceAccount: "d" }],
              },
            ],
          ],
        ],
      },
    ]);
  });
});
