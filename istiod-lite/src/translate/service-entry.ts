// ServiceEntries: one service per host, and a workload per endpoint (facts of istiod's ambient index).
// Resolution NONE passes traffic through to the address; DNS without endpoints resolves the host itself.

import { create } from "@bufbuild/protobuf";
import {
  type Address,
  AddressSchema,
  Service_Visibility,
  TunnelProtocol,
  WorkloadType,
} from "@ambit/api/gen/istio/workload_pb.ts";
import type { Namespace, ServiceEntry } from "@ambit/api/resources/kinds.ts";
import type { Visibility } from "../mesh-config/mesh-config.ts";
import { parseCidr } from "@ambit/common/net/cidr.ts";
import { ipFamily, ipToBytes, parseIp } from "@ambit/common/net/ip.ts";
import { protocolOfEntry } from "./app-protocol.ts";
import { canonicalName, canonicalRevision, type Labels, labelsOf } from "./labels.ts";
import { serviceEntryBalancing } from "./load-balancing.ts";
import { localityOfText } from "./locality.ts";
import { entryPortsOfServiceEntry, servicesField } from "./served-ports.ts";
import type { ServiceWaypoints } from "./service.ts";
import { type MeshSettings, trustDomainField } from "./settings.ts";
import { tunnelOf, type WorkloadGateways } from "./workload.ts";

type Endpoint = NonNullable<ServiceEntry["spec"]["endpoints"]>[number];

const DNS_RESOLUTIONS = new Set(["DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]);

export function isWildcardHost(host: string): boolean {
  return host.startsWith("*");
}

/** The hosts that become services: a wildcard needs names resolved as they are asked for. */
export function meshHosts({ spec }: ServiceEntry): readonly string[] {
  const hosts = [...new Set(spec.hosts)];
  return spec.resolution === "DYNAMIC_DNS" ? hosts : hosts.filter((host) => !isWildcardHost(host));
}

/** The labels its endpoints have, when it selects them instead of listing them. */
export function serviceEntrySelector({ spec }: ServiceEntry): Labels | undefined {
  const labels = spec.workloadSelector?.labels ?? {};
  return Object.keys(labels).length === 0 ? undefined : labels;
}

/** Whether a Service or an older entry has the same host, and which counts in the mesh. */
export interface HostClaim {
  readonly host: string;
  /** Clients of other namespaces mean this one by the host. */
  readonly canonical: boolean;
}

const VISIBILITIES = {
  NONE: Service_Visibility.NAMESPACE,
  NAMESPACE: Service_Visibility.NAMESPACE,
  PUBLIC: Service_Visibility.PUBLIC,
};

/** What the services of an entry depend on besides it. */
export interface EntryServicesView {
  readonly settings: MeshSettings;
  /** The hosts that the entry has to itself in its namespace. */
  readonly claims: readonly HostClaim[];
  readonly namespace: Namespace | undefined;
  readonly waypoints: ServiceWaypoints;
  readonly visibility: Visibility;
}

export function serviceEntryServices(
  entry: ServiceEntry,
  { claims, namespace, waypoints, visibility, settings }: EntryServicesView,
): Address[] {
  return claims.map(({ host, canonical }) =>
    create(AddressSchema, {
      type: {
        case: "service",
        value: {
          name: entry.metadata.name,
          namespace: entry.metadata.namespace ?? "",
          hostname: host,
          addresses: vipsOf(entry, host).flatMap((text) => addressOf(text, settings)),
          ports: (entry.spec.ports ?? []).map(({ number, targetPort = number, protocol }) => ({
            servicePort: number,
            targetPort,
            appProtocol: protocolOfEntry(protocol),
          })),
          subjectAltNames: entry.spec.subjectAltNames ?? [],
          canonical,
          visibility: VISIBILITIES[visibility],
          ...waypoints,
          ...serviceEntryBalancing(entry, namespace),
        },
      },
    }),
  );
}

/** The addresses its author gave, else those allocated to the host; without resolution only the former. */
function vipsOf({ spec, status }: ServiceEntry, host: string): readonly string[] {
  const { addresses: declared = [], resolution } = spec;
  if (declared.length > 0 || resolution === "NONE") return declared;
  return (status?.addresses ?? [])
    .filter((allocated) => (allocated.host ?? host) === host)
    .map(({ value }) => value);
}

function addressOf(
  text: string,
  { network }: MeshSettings,
): { network: string; address: Uint8Array; length?: number }[] {
  const cidr = parseCidr(text);
  if (cidr === undefined) return [];
  const whole = ipFamily(cidr.ip) === 4 ? 32 : 128;
  const address = { network, address: ipToBytes(cidr.ip) };
  return [cidr.prefixLength === whole ? address : { ...address, length: cidr.prefixLength }];
}

export interface EndpointSurroundings {
  readonly gateways: WorkloadGateways;
  /** Keys of those that apply to it. */
  readonly policies: readonly string[];
}

/** What the workloads of an entry depend on besides it. */
export interface EntryWorkloadsView {
  readonly settings: MeshSettings;
  /** Those that the entry has to itself: without any it has no workloads either. */
  readonly hosts: readonly string[];
  /** By an endpoint's labels, which an implied endpoint has not, and its network. */
  readonly around: (labels: Labels | undefined, network: string) => EndpointSurroundings;
}

/** The workloads that the entry itself lists or implies. */
export function serviceEntryWorkloads(entry: ServiceEntry, view: EntryWorkloadsView): Address[] {
  return endpointsOf(entry, view.hosts).map((placed) => workloadOf(entry, placed, view));
}

interface PlacedEndpoint {
  readonly endpoint: Endpoint;
  readonly hosts: readonly string[];
}

/** The listed endpoints serve every host; a DNS entry without any is its own endpoint, host by host. */
function endpointsOf({ spec }: ServiceEntry, hosts: readonly string[]): PlacedEndpoint[] {
  if (hosts.length === 0) return [];
  const listed = new Map<string, Endpoint>();
  for (const endpoint of spec.endpoints ?? []) {
    const { address = "" } = endpoint;
    if (address !== "" && !address.startsWith("unix:")) listed.set(address, endpoint);
  }
  if (listed.size > 0)
    return [...listed.values()].map(({ labels = {}, ...endpoint }) => ({
      endpoint: { ...endpoint, labels },
      hosts,
    }));
  if (!DNS_RESOLUTIONS.has(spec.resolution) || spec.workloadSelector !== undefined) return [];
  // Nobody can look up a wildcard: its names are resolved where they are asked for.
  const names = hosts.filter((host) => !isWildcardHost(host));
  return names.map((host) => ({ endpoint: { address: host }, hosts: [host] }));
}

function workloadOf(
  entry: ServiceEntry,
  { endpoint, hosts }: PlacedEndpoint,
  { settings, around }: EntryWorkloadsView,
): Address {
  const { metadata } = entry;
  const network = endpoint.network ?? settings.network;
  const { gateways, policies } = around(endpoint.labels, network);
  const namespace = metadata.namespace ?? "";
  const { address = "" } = endpoint;
  const ip = parseIp(address);
  const labels = { ...labelsOf(entry), ...endpoint.labels };
  const ports = entryPortsOfServiceEntry(endpoint, entry);
  return create(AddressSchema, {
    type: {
      case: "workload",
      value: {
        uid: `${settings.clusterId}/networking.istio.io/ServiceEntry/${namespace}/${metadata.name}/${address}`,
        name: metadata.name,
        namespace,
        addresses: ip === undefined ? [] : [ipToBytes(ip)],
        hostname: ip === undefined ? address : "",
        network,
        ...tunnelOf(labels, TunnelProtocol.NONE),
        trustDomain: trustDomainField(settings),
        serviceAccount: endpoint.serviceAccount ?? "default",
        canonicalName: canonicalName(labels, metadata.name),
        canonicalRevision: canonicalRevision(labels),
        workloadType: WorkloadType.POD,
        workloadName: metadata.name,
        clusterId: settings.clusterId,
        authorizationPolicies: [...policies].sort(),
        services: servicesField(hosts.map((host) => ({ name: `${namespace}/${host}`, ports }))),
        ...gateways,
        ...localityOfText(endpoint.locality),
        ...(endpoint.weight ? { capacity: endpoint.weight } : {}),
      },
    },
  });
}
