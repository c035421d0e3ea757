// Kubernetes Services to istio.workload.Service (facts of istiod's ambient index).

import { create } from "@bufbuild/protobuf";
import { type Address, AddressSchema, IPFamilies } from "@ambit/api/gen/istio/workload_pb.ts";
import type { Namespace, Service } from "@ambit/api/resources/kinds.ts";
import { ipToBytes, parseIp, type Ip } from "@ambit/common/net/ip.ts";
import { protocolOfService } from "./app-protocol.ts";
import { serviceBalancing } from "./load-balancing.ts";
import type { MeshSettings } from "./settings.ts";
import type { GatewayAddress } from "./waypoint.ts";

/** The waypoints that connections to a service go through. */
export interface ServiceWaypoints {
  readonly waypoint?: GatewayAddress;
  readonly weightedWaypoints?: { destination: GatewayAddress; weight: number }[];
  /** Ingress gateways go through it too. */
  readonly ingressUseWaypoint: boolean;
}

type ServicePort = NonNullable<NonNullable<Service["spec"]>["ports"]>[number];

export function serviceHostname(
  service: Service,
  { clusterDomain }: Pick<MeshSettings, "clusterDomain">,
): string {
  return `${service.metadata.name}.${service.metadata.namespace}.svc.${clusterDomain}`;
}

/** "namespace/hostname": the resource's name, and how workloads refer to it. */
export function serviceResourceName(service: Service, settings: MeshSettings): string {
  return `${service.metadata.namespace}/${serviceHostname(service, settings)}`;
}

/** An ExternalName service is a DNS alias, no service of the mesh. */
export function isMeshService({ spec }: Service): boolean {
  return spec !== undefined && spec.type !== "ExternalName";
}

/** The labels its endpoints have; undefined when they are listed in EndpointSlices instead. */
export function serviceSelector({ spec }: Service): Readonly<Record<string, string>> | undefined {
  const selector = spec?.selector;
  return selector === undefined || Object.keys(selector).length === 0 ? undefined : selector;
}

/** undefined: not a service of the mesh. */
export function translateService(
  service: Service,
  namespace: Namespace | undefined,
  waypoints: ServiceWaypoints,
  settings: MeshSettings,
): Address | undefined {
  if (!isMeshService(service)) return undefined;
  const { network } = settings;
  return create(AddressSchema, {
    type: {
      case: "service",
      value: {
        name: service.metadata.name,
        namespace: service.metadata.namespace ?? "",
        hostname: serviceHostname(service, settings),
        addresses: clusterIps(service).map((ip) => ({ network, address: ipToBytes(ip) })),
        ports: tcpPorts(service).map((port) => ({
          servicePort: port.port,
          targetPort: typeof port.targetPort === "string" ? 0 : (port.targetPort ?? port.port),
          appProtocol: protocolOfService(port),
        })),
        ipFamilies: families(service.spec?.ipFamilies ?? []),
        canonical: true,
        ...waypoints,
        ...serviceBalancing(service, namespace),
      },
    },
  });
}

/** The VIPs; none for a headless service. */
export function clusterIps({ spec }: Service): Ip[] {
  const texts = spec?.clusterIPs ?? (spec?.clusterIP === undefined ? [] : [spec.clusterIP]);
  return texts.flatMap((text) => (text === "None" || text === "" ? [] : (parseIp(text) ?? [])));
}

export function tcpPorts({ spec }: Service): ServicePort[] {
  return (spec?.ports ?? []).filter(({ protocol }) => protocol === "TCP");
}

function families(list: readonly string[]): IPFamilies {
  if (list.length === 0) return IPFamilies.AUTOMATIC;
  if (list.length > 1) return IPFamilies.DUAL;
  return list[0] === "IPv6" ? IPFamilies.IPV6_ONLY : IPFamilies.IPV4_ONLY;
}
