// Pods and WorkloadEntries to istio.workload.Workload (facts of istiod's ambient index). Whether a pod
// speaks HBONE is decided by the node agent's annotation alone, never by labels.

import { create } from "@bufbuild/protobuf";
import {
  type Address,
  AddressSchema,
  NetworkMode,
  TunnelProtocol,
  WorkloadStatus,
  WorkloadType,
} from "@ambit/api/gen/istio/workload_pb.ts";
import type { Node, Pod, Service, WorkloadEntry } from "@ambit/api/resources/kinds.ts";
import { ipToBytes, parseIp, type Ip } from "@ambit/common/net/ip.ts";
import { canonicalName, canonicalRevision, labelsOf } from "./labels.ts";
import { serviceResourceName, targetPortOn, tcpPorts } from "./service.ts";
import type { MeshSettings } from "./settings.ts";

export const REDIRECTION_ANNOTATION = "ambient.istio.io/redirection";
const TUNNEL_LABEL = "networking.istio.io/tunnel";

/** What a workload's resource depends on besides its own object. */
export interface WorkloadView {
  readonly settings: MeshSettings;
  /** Services it is an endpoint of. */
  readonly services: readonly Service[];
  readonly node: Node | undefined;
  /** Keys of the policies that select it. */
  readonly policies: readonly string[];
}

export function podUid({ metadata }: Pod, { clusterId }: MeshSettings): string {
  return `${clusterId}//Pod/${metadata.namespace}/${metadata.name}`;
}

/** undefined: no workload (finished, or without an address yet). */
export function translatePod(pod: Pod, view: WorkloadView): Address | undefined {
  const addresses = podIps(pod);
  const phase = pod.status?.phase;
  if (addresses.length === 0 || phase === "Succeeded" || phase === "Failed") return undefined;
  const { settings, services, node, policies } = view;
  const labels = labelsOf(pod);
  const native = labels[TUNNEL_LABEL] === "http";
  const captured = pod.metadata.annotations?.[REDIRECTION_ANNOTATION] === "enabled";
  const workloadName = controllerName(pod);
  return create(AddressSchema, {
    type: {
      case: "workload",
      value: {
        uid: podUid(pod, settings),
        name: pod.metadata.name,
        namespace: pod.metadata.namespace ?? "",
        addresses: addresses.map(ipToBytes),
        network: settings.network,
        tunnelProtocol: captured || native ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
        nativeTunnel: native,
        trustDomain: settings.trustDomain === "cluster.local" ? "" : settings.trustDomain,
        serviceAccount: pod.spec.serviceAccountName ?? "default",
        node: pod.spec.nodeName ?? "",
        canonicalName: canonicalName(labels, workloadName),
        canonicalRevision: canonicalRevision(labels),
        workloadType: WorkloadType.POD,
        workloadName,
        clusterId: settings.clusterId,
        status: isReady(pod) ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
        networkMode: pod.spec.hostNetwork ? NetworkMode.HOST_NETWORK : NetworkMode.STANDARD,
        authorizationPolicies: [...policies].sort(),
        services: Object.fromEntries(
          services.map((service) => [
            serviceResourceName(service, settings),
            { ports: portsOn(pod, service) },
          ]),
        ),
        ...localityOf(node),
      },
    },
  });
}

export function podIps({ status }: Pod): Ip[] {
  const texts =
    status?.podIPs?.map(({ ip }) => ip) ?? (status?.podIP === undefined ? [] : [status.podIP]);
  return texts.flatMap((text) => parseIp(text) ?? []);
}

function portsOn(pod: Pod, service: Service): { servicePort: number; targetPort: number }[] {
  return tcpPorts(service).flatMap((port) => {
    const targetPort = targetPortOn(pod, port);
    return targetPort === undefined ? [] : [{ servicePort: port.port, targetPort }];
  });
}

function isReady({ metadata, status }: Pod): boolean {
  if (metadata.deletionTimestamp !== undefined) return false;
  return (
    status?.conditions?.some(({ type, status: value }) => type === "Ready" && value === "True") ??
    false
  );
}

/** The Deployment behind a ReplicaSet's pod template hash, the owner, or the pod itself. */
function controllerName(pod: Pod): string {
  const labels = labelsOf(pod);
  const named = labels["service.istio.io/workload-name"];
  if (named !== undefined) return named;
  const owner = pod.metadata.ownerReferences?.find(({ controller }) => controller);
  if (owner === undefined) return pod.metadata.name;
  const hash = labels["pod-template-hash"];
  const suffix = hash === undefined ? undefined : `-${hash}`;
  return owner.kind === "ReplicaSet" && suffix !== undefined && owner.name.endsWith(suffix)
    ? owner.name.slice(0, -suffix.length)
    : owner.name;
}

function localityOf(node: Node | undefined) {
  const labels = node?.metadata.labels ?? {};
  const region = labels["topology.kubernetes.io/region"] ?? "";
  const zone = labels["topology.kubernetes.io/zone"] ?? "";
  const subzone = labels["topology.istio.io/subzone"] ?? "";
  return region || zone || subzone ? { locality: { region, zone, subzone } } : {};
}

export function workloadEntryUid({ metadata }: WorkloadEntry, { clusterId }: MeshSettings): string {
  return `${clusterId}/networking.istio.io/WorkloadEntry/${metadata.namespace}/${metadata.name}`;
}

/** A workload outside Kubernetes: always healthy, by address or by DNS name. */
export function translateWorkloadEntry(
  entry: WorkloadEntry,
  view: WorkloadView,
): Address | undefined {
  const { settings, services, policies } = view;
  const { spec } = entry;
  if (spec.address === undefined || spec.address === "" || spec.address.startsWith("unix:"))
    return undefined;
  const ip = parseIp(spec.address);
  const labels = { ...labelsOf(entry), ...spec.labels };
  const native = labels[TUNNEL_LABEL] === "http";
  return create(AddressSchema, {
    type: {
      case: "workload",
      value: {
        uid: workloadEntryUid(entry, settings),
        name: entry.metadata.name,
        namespace: entry.metadata.namespace ?? "",
        addresses: ip === undefined ? [] : [ipToBytes(ip)],
        hostname: ip === undefined ? spec.address : "",
        network: spec.network ?? settings.network,
        tunnelProtocol: native ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
        nativeTunnel: native,
        trustDomain: settings.trustDomain === "cluster.local" ? "" : settings.trustDomain,
        serviceAccount: spec.serviceAccount ?? "default",
        canonicalName: canonicalName(labels, entry.metadata.name),
        canonicalRevision: canonicalRevision(labels),
        workloadType: WorkloadType.POD,
        workloadName: entry.metadata.name,
        clusterId: settings.clusterId,
        authorizationPolicies: [...policies].sort(),
        services: Object.fromEntries(
          services.map((service) => [
            serviceResourceName(service, settings),
            { ports: entryPorts(entry, service) },
          ]),
        ),
        ...(spec.weight !== undefined && { capacity: spec.weight }),
      },
    },
  });
}

function entryPorts(
  { spec }: WorkloadEntry,
  service: Service,
): { servicePort: number; targetPort: number }[] {
  return tcpPorts(service).flatMap((port) => {
    const named = port.name === undefined ? undefined : spec.ports?.[port.name];
    const targetPort =
      named ?? (typeof port.targetPort === "string" ? undefined : (port.targetPort ?? port.port));
    return targetPort === undefined ? [] : [{ servicePort: port.port, targetPort }];
  });
}
