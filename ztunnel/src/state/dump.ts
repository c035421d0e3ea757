// The state as `/config_dump` shows it: istioctl's field names (ztunnel §7.3).

import { formatCidr } from "@ambit/common/net/cidr.ts";
import { dumpPolicy } from "./dump-policy.ts";
import type { MeshState } from "./mesh-state.ts";
import type { StoredService } from "./service-store.ts";
import type { GatewayAddress, NetworkAddress, Workload } from "./workload.ts";

export interface StateDump {
  readonly workloads: readonly Record<string, unknown>[];
  readonly services: readonly Record<string, unknown>[];
  readonly policies: readonly Record<string, unknown>[];
  readonly stagedServices: readonly string[];
}

export function dumpState(state: MeshState): StateDump {
  return {
    workloads: [...state.workloads].map(dumpWorkload),
    services: [...state.services.all].map(dumpService),
    policies: [...state.policies].map(dumpPolicy),
    stagedServices: [...state.services.stagedKeys],
  };
}

function dumpWorkload(workload: Workload): Record<string, unknown> {
  return {
    uid: workload.uid,
    workloadIps: workload.addresses,
    protocol: workload.protocol,
    name: workload.name,
    namespace: workload.namespace,
    serviceAccount: workload.serviceAccount,
    workloadName: workload.workloadName,
    workloadType: workload.workloadKind,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    clusterId: workload.clusterId,
    trustDomain: workload.trustDomain,
    locality: workload.locality,
    node: workload.node,
    network: workload.network,
    status: healthText(workload),
    networkMode: workload.hostNetwork ? "HostNetwork" : "Standard",
    hostname: workload.hostname,
    capacity: workload.capacity,
    authorizationPolicies: workload.authorizationPolicies,
    services: [...workload.services.keys()],
    ...(workload.waypoint && { waypoint: dumpGateway(workload.waypoint) }),
    ...(workload.networkGateway && { networkGateway: dumpGateway(workload.networkGateway) }),
    ...(workload.applicationTunnel && { applicationTunnel: workload.applicationTunnel }),
  };
}

function healthText({ healthy }: Workload): string {
  return healthy ? "Healthy" : "Unhealthy";
}

function dumpService({ service, endpoints }: StoredService): Record<string, unknown> {
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    vips: service.vips.map(addressText),
    cidrVips: service.cidrVips.map(({ network, cidr }) => `${network}/${formatCidr(cidr)}`),
    ports: Object.fromEntries(service.ports),
    endpoints: Object.fromEntries(
      [...endpoints].map(([uid, { workload, ports }]) => [
        uid,
        { workloadUid: uid, port: Object.fromEntries(ports), status: healthText(workload) },
      ]),
    ),
    subjectAltNames: service.subjectAltNames,
    loadBalancer: {
      mode: service.loadBalancer.mode,
      routingPreferences: service.loadBalancer.routingPreferences,
      healthPolicy: service.loadBalancer.allowUnhealthy ? "AllowAll" : "OnlyHealthy",
    },
    ipFamilies: service.ipFamilies.map((family) => `IPv${family}`),
    canonical: service.canonical,
    visibility: service.namespacePrivate ? "Namespace" : "Public",
    ...(service.waypoint && { waypoint: dumpGateway(service.waypoint) }),
    ...(service.weightedWaypoints.length > 0 && {
      weightedWaypoints: service.weightedWaypoints.map(({ waypoint, weight }) => ({
        destination: dumpGateway(waypoint),
        weight,
      })),
    }),
  };
}

function dumpGateway({ destination, hboneMtlsPort }: GatewayAddress): Record<string, unknown> {
  const where =
    destination.kind === "address"
      ? addressText(destination)
      : `${destination.namespace}/${destination.hostname}`;
  return { destination: where, hboneMtlsPort };
}

function addressText({ network, ip }: NetworkAddress): string {
  return `${network}/${ip}`;
}
