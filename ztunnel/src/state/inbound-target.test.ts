import { describe, expect, it } from "vitest";
import { Service_Visibility } from "@ambit/api/gen/istio/workload_pb.ts";
import { parseAuthority } from "@ambit/common/hbone/authority.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { resolveInboundTarget } from "./inbound-target.ts";
import { bytes, serves, TestMesh } from "./testing-mesh.ts";

const OWN_PORTS = new Set([15_001, 15_006, 15_008]);

/** `address` attaches what it belongs to to the waypoint with this address. */
const waypointAt = (address: string) => ({
  waypoint: {
    destination: { case: "address" as const, value: { address: bytes(address) } },
    hboneMtlsPort: 15_008,
  },
});

const waypointNamed = (hostname: string) => ({
  waypoint: {
    destination: { case: "hostname" as const, value: { namespace: "ns", hostname } },
    hboneMtlsPort: 15_008,
  },
});

function mesh(): TestMesh {
  return new TestMesh()
    .workload("pod", ["10.0.0.1", "fd00::1"], {
      services: { ...serves("web"), ...serves("named", 9090) },
    })
    .service("named", ["10.96.0.8"], { ports: [{ servicePort: 80, targetPort: 0 }] })
    .workload("gate", ["10.0.0.9"], { services: serves("gate") })
    .workload("tunnel", ["10.0.0.8"], { applicationTunnel: { protocol: 1, port: 3128 } })
    .workload("own", ["10.0.0.7"], { applicationTunnel: { protocol: 1, port: 15_008 } })
    .workload("behind", ["10.0.0.2"], waypointAt("10.96.0.9"))
    .workload("direct", ["10.0.0.3"], waypointAt("10.0.0.9"))
    .workload("stranger", ["10.0.0.4"])
    .service("web", ["10.96.0.1"])
    .service("bare", ["10.96.0.5"])
    .service("gate", ["10.96.0.9"])
    .service("routed", ["10.96.0.2"], waypointNamed("gate.ns.svc.cluster.local"))
    .service("private", ["10.96.0.6"], {
      ...waypointAt("10.96.0.9"),
      namespace: "other",
      visibility: Service_Visibility.NAMESPACE,
    })
    .service("canary", ["10.96.0.7"], {
      weightedWaypoints: [{ destination: waypointAt("10.0.0.9").waypoint, weight: 5 }],
    })
    .service("elsewhere", ["10.96.0.3"], waypointNamed("web.ns.svc.cluster.local"));
}

function ask(pod: string, authority: string, localIp?: string) {
  const { state } = mesh();
  const workload = mesh().get(pod);
  return resolveInboundTarget(state, {
    authority: parseAuthority(authority)!,
    localIp: (localIp ?? workload.addresses[0]!) as Ip,
    workload,
    ownPorts: OWN_PORTS,
  });
}

describe("an inbound CONNECT is served", () => {
  it.each([
    ["for the pod's own address", "pod", "10.0.0.1:8080", 8080],
    ["for the address it came to", "pod", "[fd00::1]:8080", 8080],
    ["for any address when the pod has an application tunnel", "tunnel", "1.2.3.4:80", 3128],
    ["for a service whose waypoint the pod serves, by name", "gate", "10.96.0.2:80", 80],
    ["for a workload whose waypoint is the pod's service", "gate", "10.0.0.2:80", 80],
    ["for a workload whose waypoint is the pod itself", "gate", "10.0.0.3:80", 80],
    ["for a service that only its own namespace may see", "gate", "10.96.0.6:80", 80],
    ["for a service that sends the pod a share of its traffic", "gate", "10.96.0.7:80", 80],
    ["for its service by name, on the target port", "pod", "web.ns.svc.cluster.local:80", 8080],
    [
      "by name, on the port that the pod maps by name",
      "pod",
      "named.ns.svc.cluster.local:80",
      9090,
    ],
    ["whatever the case of the name", "pod", "WEB.ns.svc.cluster.local:80", 8080],
  ])("%s", (_, pod, authority, port) => {
    const localIp = authority.startsWith("[") ? "fd00::1" : undefined;
    expect(ask(pod, authority, localIp)).toMatchObject({ ok: true, port });
  });
});

describe("an inbound CONNECT is refused", () => {
  it.each([
    ["for another pod's address", "pod", "10.0.0.4:8080", "IP_MISMATCH"],
    ["for an address nobody has", "pod", "10.9.9.9:8080", "IP_MISMATCH"],
    ["for a service, as its address is not the pod's", "pod", "10.96.0.1:80", "IP_MISMATCH"],
    ["for a service with another waypoint", "gate", "10.96.0.3:80", "IP_MISMATCH"],
    ["for a name nobody has", "pod", "ghost.ns.svc.cluster.local:80", "UNKNOWN_DESTINATION"],
    ["for a port that the service lacks", "pod", "web.ns.svc.cluster.local:81", "NO_PORT"],
    [
      "for a port of that name that the pod does not map",
      "gate",
      "named.ns.svc.cluster.local:80",
      "NO_PORT",
    ],
    ["for ztunnel's own port", "pod", "10.0.0.1:15008", "SELF_CALL"],
    ["for an application tunnel to ztunnel's own port", "own", "10.0.0.7:80", "SELF_CALL"],
  ])("%s", (_, pod, authority, code) => {
    expect(ask(pod, authority)).toMatchObject({ ok: false, code });
  });
});
