// The door for xDS addresses: wire messages in, our own types out, or the reason for a NACK
// (ztunnel §6.1: defaults and rejections). Repeated strings are interned: most workloads share them.

import {
  type Address,
  ApplicationTunnel_Protocol,
  type GatewayAddress as WireGateway,
  IPFamilies,
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  NetworkMode,
  type Locality as WireLocality,
  type NetworkAddress as WireAddress,
  type PortList,
  type Service as WireService,
  Service_Visibility,
  TunnelProtocol,
  type Workload as WireWorkload,
  WorkloadStatus,
  WorkloadType,
} from "@ambit/api/gen/istio/workload_pb.ts";
import { anyUnpack, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { makeCidr } from "@ambit/common/net/cidr.ts";
import { type Ip, type IpFamily, ipFamily, ipFromBytes } from "@ambit/common/net/ip.ts";
import type { SameNodePath } from "../config.ts";
import { Interner, keyOf } from "./interner.ts";
import type { LoadBalancer, Scope, Service } from "./service.ts";
import type { GatewayAddress, Locality, PortMap, Workload, WorkloadUid } from "./workload.ts";

/** A resource that must be NACKed; the message is what the control plane is told. */
export class RejectedResource extends Error {
  override readonly name = "RejectedResource";
}

export type MeshAddress =
  | { readonly kind: "workload"; readonly workload: Workload }
  | { readonly kind: "service"; readonly service: Service };

/** Converts an Address. Throws RejectedResource. */
export function addressFromProto(wire: Address): MeshAddress {
  switch (wire.type.case) {
    case "workload":
      return { kind: "workload", workload: workloadFromProto(wire.type.value) };
    case "service":
      return { kind: "service", service: serviceFromProto(wire.type.value) };
    case undefined:
      throw new RejectedResource("address without workload or service");
  }
}

export function workloadFromProto(wire: WireWorkload): Workload {
  if (wire.tunnelProtocol === TunnelProtocol.LEGACY_ISTIO_MTLS) {
    throw new RejectedResource("tunnel protocol LEGACY_ISTIO_MTLS is not supported");
  }
  const protocol = known("tunnel protocol", TUNNELS, wire.tunnelProtocol);
  const networkMode = known("network mode", HOST_NETWORK, wire.networkMode);
  const healthy = known("status", HEALTH, wire.status);
  const { locality, applicationTunnel } = wire;
  return {
    uid: wire.uid as WorkloadUid,
    name: wire.name,
    namespace: intern(wire.namespace),
    serviceAccount: intern(wire.serviceAccount || "default"),
    trustDomain: intern(wire.trustDomain || "cluster.local"),
    network: intern(wire.network),
    addresses: wire.addresses.map(ipOrReject),
    hostname: wire.hostname,
    node: intern(wire.node),
    protocol,
    nativeTunnel: wire.nativeTunnel,
    workloadName: intern(wire.workloadName),
    workloadKind: WORKLOAD_KINDS.get(wire.workloadType) ?? "deployment",
    canonicalName: intern(wire.canonicalName),
    canonicalRevision: intern(wire.canonicalRevision),
    clusterId: intern(wire.clusterId || "Kubernetes"),
    locality: localityOf(locality),
    healthy,
    hostNetwork: networkMode,
    capacity: wire.capacity ?? 1,
    authorizationPolicies: policiesOf(wire.authorizationPolicies),
    services: servicesOf(wire.services),
    ...sameNodeOf(wire),
    ...(wire.waypoint && { waypoint: gatewayFromProto(wire.waypoint) }),
    ...(wire.networkGateway && { networkGateway: gatewayFromProto(wire.networkGateway) }),
    ...(applicationTunnel && {
      applicationTunnel: {
        protocol: known("application tunnel", APP_TUNNELS, applicationTunnel.protocol),
        ...(applicationTunnel.port !== 0 && { port: applicationTunnel.port }),
      },
    }),
  };
}

/** Our control plane's extension; words and extensions that nobody here knows are passed over. */
function sameNodeOf({ extensions }: WireWorkload): Pick<Workload, "sameNode"> {
  for (const { name, config } of extensions) {
    if (name !== SAME_NODE_EXTENSION || config === undefined) continue;
    const sameNode = SAME_NODE_PATHS.get(anyUnpack(config, StringValueSchema)?.value ?? "");
    if (sameNode !== undefined) return { sameNode };
  }
  return {};
}

const SAME_NODE_EXTENSION = "ambit.io/same-node";
const SAME_NODE_PATHS = new Map<string, SameNodePath>([
  ["local", "local"],
  ["direct", "direct"],
  ["hbone", "hbone"],
]);

export function serviceFromProto(wire: WireService): Service {
  const vips: { network: string; ip: Ip }[] = [];
  const cidrVips: Service["cidrVips"][number][] = [];
  for (const address of wire.addresses) {
    const ip = ipOrReject(address.address);
    const bits = ipFamily(ip) === 4 ? 32 : 128;
    if (address.length === undefined || address.length === bits) {
      vips.push({ network: intern(address.network), ip });
      continue;
    }
    const cidr = makeCidr(ip, address.length);
    if (cidr === undefined) throw new RejectedResource(`prefix length ${address.length} of ${ip}`);
    cidrVips.push({ network: intern(address.network), cidr });
  }
  return {
    name: wire.name,
    namespace: intern(wire.namespace),
    hostname: wire.hostname,
    vips,
    cidrVips,
    ports: new Map(wire.ports.map(({ servicePort, targetPort }) => [servicePort, targetPort])),
    subjectAltNames: wire.subjectAltNames,
    weightedWaypoints: wire.weightedWaypoints.map(({ destination, weight }) => ({
      waypoint: gatewayFromProto(destination),
      weight,
    })),
    loadBalancer: loadBalancerOf(wire),
    ipFamilies: known("ip families", IP_FAMILIES, wire.ipFamilies),
    canonical: wire.canonical,
    namespacePrivate: wire.visibility === Service_Visibility.NAMESPACE,
    ...(wire.waypoint && { waypoint: gatewayFromProto(wire.waypoint) }),
  };
}

function loadBalancerOf({ loadBalancing }: WireService): LoadBalancer {
  if (loadBalancing === undefined) return STANDARD_BALANCER;
  return {
    mode: known("load balancing mode", MODES, loadBalancing.mode),
    routingPreferences: loadBalancing.routingPreference.map((scope) =>
      known("routing preference", SCOPES, scope),
    ),
    allowUnhealthy: known("health policy", HEALTH_POLICIES, loadBalancing.healthPolicy),
  };
}

const STANDARD_BALANCER: LoadBalancer = {
  mode: "standard",
  routingPreferences: [],
  allowUnhealthy: false,
};

function gatewayFromProto(wire: WireGateway | undefined): GatewayAddress {
  const { destination } = wire ?? { destination: { case: undefined } };
  switch (destination.case) {
    case "address":
      return { destination: addressOf(destination.value), hboneMtlsPort: wire!.hboneMtlsPort };
    case "hostname": {
      const { namespace, hostname } = destination.value;
      return {
        destination: { kind: "hostname", namespace: intern(namespace), hostname },
        hboneMtlsPort: wire!.hboneMtlsPort,
      };
    }
    case undefined:
      throw new RejectedResource("gateway without destination");
  }
}

function addressOf({ network, address }: WireAddress): GatewayAddress["destination"] {
  return { kind: "address", network: intern(network), ip: ipOrReject(address) };
}

function ipOrReject(bytes: Uint8Array): Ip {
  const ip = ipFromBytes(bytes);
  if (ip === undefined) throw new RejectedResource(`address of ${bytes.length} bytes`);
  return ip;
}

function known<K, V>(what: string, table: ReadonlyMap<K, V>, value: K): V {
  const found = table.get(value);
  if (found === undefined) throw new RejectedResource(`unknown ${what} ${String(value)}`);
  return found;
}

const TUNNELS = new Map<TunnelProtocol, Workload["protocol"]>([
  [TunnelProtocol.NONE, "NONE"],
  [TunnelProtocol.HBONE, "HBONE"],
]);
const HOST_NETWORK = new Map<NetworkMode, boolean>([
  [NetworkMode.STANDARD, false],
  [NetworkMode.HOST_NETWORK, true],
]);
const HEALTH = new Map<WorkloadStatus, boolean>([
  [WorkloadStatus.HEALTHY, true],
  [WorkloadStatus.UNHEALTHY, false],
]);
const APP_TUNNELS = new Map<ApplicationTunnel_Protocol, "NONE" | "PROXY">([
  [ApplicationTunnel_Protocol.NONE, "NONE"],
  [ApplicationTunnel_Protocol.PROXY, "PROXY"],
]);
const WORKLOAD_KINDS = new Map<WorkloadType, Workload["workloadKind"]>([
  [WorkloadType.DEPLOYMENT, "deployment"],
  [WorkloadType.CRONJOB, "cronjob"],
  [WorkloadType.POD, "pod"],
  [WorkloadType.JOB, "job"],
]);
const IP_FAMILIES = new Map<IPFamilies, readonly IpFamily[]>([
  [IPFamilies.AUTOMATIC, []],
  [IPFamilies.IPV4_ONLY, [4]],
  [IPFamilies.IPV6_ONLY, [6]],
  [IPFamilies.DUAL, [4, 6]],
]);
const MODES = new Map<LoadBalancing_Mode, LoadBalancer["mode"]>([
  [LoadBalancing_Mode.UNSPECIFIED_MODE, "standard"],
  [LoadBalancing_Mode.STRICT, "strict"],
  [LoadBalancing_Mode.FAILOVER, "failover"],
  [LoadBalancing_Mode.PASSTHROUGH, "passthrough"],
]);
const HEALTH_POLICIES = new Map<LoadBalancing_HealthPolicy, boolean>([
  [LoadBalancing_HealthPolicy.ONLY_HEALTHY, false],
  [LoadBalancing_HealthPolicy.ALLOW_ALL, true],
]);
const SCOPES = new Map<LoadBalancing_Scope, Scope>([
  [LoadBalancing_Scope.REGION, "region"],
  [LoadBalancing_Scope.ZONE, "zone"],
  [LoadBalancing_Scope.SUBZONE, "subzone"],
  [LoadBalancing_Scope.NODE, "node"],
  [LoadBalancing_Scope.CLUSTER, "cluster"],
  [LoadBalancing_Scope.NETWORK, "network"],
]);

const names = new Interner<string>();
const policyLists = new Interner<readonly string[]>();
const localities = new Interner<Locality>();
const portMaps = new Interner<PortMap>();
const serviceMaps = new Interner<Workload["services"]>();

function intern(text: string): string {
  return names.get(text, () => text);
}

function policiesOf(wire: readonly string[]): readonly string[] {
  if (wire.length === 0) return NO_POLICIES;
  return policyLists.get(keyOf(wire), () => wire.map(intern));
}

function localityOf(wire: WireLocality | undefined): Locality {
  const { region = "", zone = "", subzone = "" } = wire ?? {};
  return localities.get(keyOf([region, zone, subzone]), () => ({
    region: intern(region),
    zone: intern(zone),
    subzone: intern(subzone),
  }));
}

/** Pods of one deployment have the same services. */
function servicesOf(wire: Readonly<Record<string, PortList>>): Workload["services"] {
  const services = Object.entries(wire);
  if (services.length === 0) return NO_SERVICES;
  const parts: string[] = [];
  for (const [key, { ports }] of services) {
    if (!key.includes("/")) throw new RejectedResource(`service key "${key}" has no slash`);
    parts.push(key, keyOfPorts(ports));
  }
  return serviceMaps.get(
    keyOf(parts),
    () => new Map(services.map(([key, { ports }]) => [intern(key), portMapOf(ports)])),
  );
}

function portMapOf(wire: PortList["ports"]): PortMap {
  return portMaps.get(
    keyOfPorts(wire),
    () => new Map(wire.map(({ servicePort, targetPort }) => [servicePort, targetPort])),
  );
}

function keyOfPorts(wire: PortList["ports"]): string {
  let key = "";
  for (const { servicePort, targetPort } of wire) key += `${servicePort},${targetPort};`;
  return key;
}

const NO_POLICIES: readonly string[] = [];
const NO_SERVICES: Workload["services"] = new Map();
