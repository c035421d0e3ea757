// ServiceEntries: one service per host, and a workload per endpoint (facts of istiod's ambient index).
// Resolution NONE passes traffic through to the address; DNS without endpoints resolves the host itself.

import { create } from "@bufbuild/protobuf";
import {
  type Address,
  AddressSchema,
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  TunnelProtocol,
  WorkloadType,
} from "@ambit/api/gen/istio/workload_pb.ts";
import type { ServiceEntry } from "@ambit/api/resources/kinds.ts";
import { parseCidr } from "@ambit/common/net/cidr.ts";
import { ipFamily, ipToBytes, parseIp } from "@ambit/common/net/ip.ts";
import type { MeshSettings } from "./settings.ts";

type Endpoint = NonNullable<ServiceEntry["spec"]["endpoints"]>[number];

/** The services of all hosts and their workloads. Wildcard hosts need a waypoint and are left out. */
export function translateServiceEntry(entry: ServiceEntry, settings: MeshSettings): Address[] {
  const hosts = entry.spec.hosts.filter((host) => !host.startsWith("*"));
  return [
    ...hosts.map((host) => serviceOf(entry, host, settings)),
    ...endpointsOf(entry, hosts).map(({ endpoint, hosts: served, id }) =>
      workloadOf(entry, endpoint, served, id, settings),
    ),
  ];
}

interface PlacedEndpoint {
  readonly endpoint: Endpoint;
  readonly hosts: readonly string[];
  readonly id: string;
}

/** The listed endpoints serve every host; a DNS entry without any is its own endpoint, host by host. */
function endpointsOf({ spec }: ServiceEntry, hosts: readonly string[]): PlacedEndpoint[] {
  const listed = (spec.endpoints ?? []).filter(
    ({ address }) => address !== undefined && !address.startsWith("unix:"),
  );
  if (listed.length > 0)
    return listed.map((endpoint) => ({ endpoint, hosts, id: endpoint.address! }));
  const resolves =
    spec.resolution === "DNS" ||
    spec.resolution === "DNS_ROUND_ROBIN" ||
    spec.resolution === "DYNAMIC_DNS";
  if (!resolves || spec.workloadSelector !== undefined) return [];
  return hosts.map((host) => ({ endpoint: { address: host }, hosts: [host], id: host }));
}

function serviceOf(
  { metadata, spec, status }: ServiceEntry,
  host: string,
  { network }: MeshSettings,
): Address {
  const passthrough = spec.resolution === "NONE";
  const declared = spec.addresses ?? [];
  const allocated = (status?.addresses ?? []).filter(
    (address) => address.host === undefined || address.host === host,
  );
  const addresses =
    declared.length > 0 || passthrough ? declared : allocated.map(({ value }) => value);
  return create(AddressSchema, {
    type: {
      case: "service",
      value: {
        name: metadata.name,
        namespace: metadata.namespace ?? "",
        hostname: host,
        addresses: addresses.flatMap((text) => addressOf(text, network)),
        ports: (spec.ports ?? []).map(({ number, targetPort }) => ({
          servicePort: number,
          targetPort: targetPort ?? number,
        })),
        subjectAltNames: spec.subjectAltNames ?? [],
        ...(passthrough && {
          loadBalancing: {
            mode: LoadBalancing_Mode.PASSTHROUGH,
            healthPolicy: LoadBalancing_HealthPolicy.ALLOW_ALL,
          },
        }),
      },
    },
  });
}

function addressOf(
  text: string,
  network: string,
): { network: string; address: Uint8Array; length?: number }[] {
  const cidr = parseCidr(text);
  if (cidr === undefined) return [];
  const whole = ipFamily(cidr.ip) === 4 ? 32 : 128;
  const address = { network, address: ipToBytes(cidr.ip) };
  return [cidr.prefixLength === whole ? address : { ...address, length: cidr.prefixLength }];
}

function workloadOf(
  entry: ServiceEntry,
  endpoint: Endpoint,
  hosts: readonly string[],
  id: string,
  settings: MeshSettings,
): Address {
  const { metadata, spec } = entry;
  const namespace = metadata.namespace ?? "";
  const ip = parseIp(endpoint.address ?? "");
  const ports = (spec.ports ?? []).map(({ name, number, targetPort }) => ({
    servicePort: number,
    targetPort: endpoint.ports?.[name] ?? targetPort ?? number,
  }));
  return create(AddressSchema, {
    type: {
      case: "workload",
      value: {
        uid: `${settings.clusterId}/networking.istio.io/ServiceEntry/${namespace}/${metadata.name}/${id}`,
        name: metadata.name,
        namespace,
        addresses: ip === undefined ? [] : [ipToBytes(ip)],
        hostname: ip === undefined ? (endpoint.address ?? "") : "",
        network: endpoint.network ?? settings.network,
        tunnelProtocol: TunnelProtocol.NONE,
        serviceAccount: endpoint.serviceAccount ?? "default",
        canonicalName: metadata.name,
        canonicalRevision: "latest",
        workloadType: WorkloadType.POD,
        workloadName: metadata.name,
        clusterId: settings.clusterId,
        services: Object.fromEntries(hosts.map((host) => [`${namespace}/${host}`, { ports }])),
        ...(endpoint.weight !== undefined && { capacity: endpoint.weight }),
      },
    },
  });
}
