// Kubernetes Services to istio.workload.Service (facts of istiod's ambient index).

import { create } from "@bufbuild/protobuf";
import {
  AddressSchema,
  AppProtocol,
  IPFamilies,
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  type Address,
} from "@ambit/api/gen/istio/workload_pb.ts";
import type { Pod, Service } from "@ambit/api/resources/kinds.ts";
import { ipToBytes, parseIp, type Ip } from "@ambit/common/net/ip.ts";
import type { MeshSettings } from "./settings.ts";

type ServicePort = NonNullable<NonNullable<Service["spec"]>["ports"]>[number];

export function serviceHostname(service: Service, { clusterDomain }: MeshSettings): string {
  return `${service.metadata.name}.${service.metadata.namespace}.svc.${clusterDomain}`;
}

/** "namespace/hostname": the resource's name, and how workloads refer to it. */
export function serviceResourceName(service: Service, settings: MeshSettings): string {
  return `${service.metadata.namespace}/${serviceHostname(service, settings)}`;
}

/** undefined: not a service of the mesh (ExternalName). */
export function translateService(service: Service, settings: MeshSettings): Address | undefined {
  const spec = service.spec;
  if (spec === undefined || spec.type === "ExternalName") return undefined;
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
          appProtocol: appProtocol(port),
        })),
        ipFamilies: families(spec.ipFamilies ?? []),
        canonical: true,
        ...loadBalancing(service),
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

/** The port on `pod` behind a service port; undefined when a named one is not declared there. */
export function targetPortOn(
  pod: Pod,
  { port, targetPort = port }: ServicePort,
): number | undefined {
  if (typeof targetPort === "number") return targetPort;
  for (const { ports = [] } of pod.spec.containers) {
    const found = ports.find(({ name, protocol }) => name === targetPort && protocol === "TCP");
    if (found !== undefined) return found.containerPort;
  }
  return undefined;
}

/** appProtocol first, else the prefix of the port's name (Istio's protocol selection). */
function appProtocol({ appProtocol: declared, name = "" }: ServicePort): AppProtocol {
  const text = (declared ?? name.split("-")[0] ?? "").toLowerCase();
  return APP_PROTOCOLS.get(text) ?? AppProtocol.UNKNOWN;
}

const APP_PROTOCOLS = new Map<string, AppProtocol>([
  ["http", AppProtocol.HTTP11],
  ["kubernetes.io/ws", AppProtocol.HTTP11],
  ["http2", AppProtocol.HTTP2],
  ["kubernetes.io/h2c", AppProtocol.HTTP2],
  ["grpc", AppProtocol.GRPC],
  ["tcp", AppProtocol.TCP],
  ["tls", AppProtocol.TLS],
  ["https", AppProtocol.TLS],
]);

function families(list: readonly string[]): IPFamilies {
  if (list.length === 0) return IPFamilies.AUTOMATIC;
  if (list.length > 1) return IPFamilies.DUAL;
  return list[0] === "IPv6" ? IPFamilies.IPV6_ONLY : IPFamilies.IPV4_ONLY;
}

const { NETWORK, REGION, ZONE, SUBZONE, NODE } = LoadBalancing_Scope;

/** internalTrafficPolicy, then trafficDistribution (spec before annotation), then nothing. */
function loadBalancing({ spec, metadata }: Service) {
  const healthPolicy = spec?.publishNotReadyAddresses
    ? LoadBalancing_HealthPolicy.ALLOW_ALL
    : LoadBalancing_HealthPolicy.ONLY_HEALTHY;
  if (spec?.internalTrafficPolicy === "Local") {
    return {
      loadBalancing: { mode: LoadBalancing_Mode.STRICT, routingPreference: [NODE], healthPolicy },
    };
  }
  const wish =
    spec?.trafficDistribution ?? metadata.annotations?.["networking.istio.io/traffic-distribution"];
  const routingPreference = PREFERENCES.get(wish?.toLowerCase() ?? "");
  if (routingPreference !== undefined) {
    return {
      loadBalancing: { mode: LoadBalancing_Mode.FAILOVER, routingPreference, healthPolicy },
    };
  }
  return healthPolicy === LoadBalancing_HealthPolicy.ALLOW_ALL
    ? { loadBalancing: { healthPolicy } }
    : {};
}

const PREFERENCES = new Map<string, LoadBalancing_Scope[]>([
  ["preferclose", [NETWORK, REGION, ZONE]],
  ["prefersamezone", [NETWORK, REGION, ZONE]],
  ["prefersamenode", [NETWORK, REGION, ZONE, SUBZONE, NODE]],
]);
