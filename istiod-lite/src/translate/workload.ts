// Pods and WorkloadEntries to istio.workload.Workload (facts of istiod's ambient index). Whether a pod
// speaks HBONE is decided by the node agent's annotation alone, never by the label that asks for it.

import { create } from "@bufbuild/protobuf";
import {
  type Address,
  AddressSchema,
  NetworkMode,
  TunnelProtocol,
  WorkloadStatus,
  WorkloadType,
} from "@ambit/api/gen/istio/workload_pb.ts";
import type { Namespace, Node, Pod, WorkloadEntry } from "@ambit/api/resources/kinds.ts";
import { ipToBytes, parseIp, type Ip } from "@ambit/common/net/ip.ts";
import { canonicalName, canonicalRevision, type Labels, labelsOf } from "./labels.ts";
import { localityOfNode, localityOfText } from "./locality.ts";
import { sameNodeOf } from "./same-node.ts";
import { type ServedService, servicesField } from "./served-ports.ts";
import { type MeshSettings, trustDomainField } from "./settings.ts";
import type { Binding, GatewayAddress } from "./waypoint.ts";
import { workloadNameOf } from "./workload-name.ts";

const REDIRECTION_ANNOTATION = "ambient.istio.io/redirection";
const TUNNEL_LABEL = "networking.istio.io/tunnel";

/** Where connections to a workload go first, and how they are handed to one that is a waypoint. */
export interface WorkloadGateways {
  readonly waypoint?: GatewayAddress;
  readonly applicationTunnel?: Binding;
  /** The way into its network, when that is another one. */
  readonly networkGateway?: GatewayAddress;
}

/** What a workload's resource depends on besides its own object. */
export interface WorkloadView {
  readonly settings: MeshSettings;
  readonly gateways: WorkloadGateways;
  readonly services: readonly ServedService[];
  readonly node: Node | undefined;
  readonly namespace: Namespace | undefined;
  /** Keys of the policies that select it. */
  readonly policies: readonly string[];
}

function podUid({ metadata }: Pod, { clusterId }: MeshSettings): string {
  return `${clusterId}//Pod/${metadata.namespace}/${metadata.name}`;
}

/** Workloads that terminate HBONE themselves say so by label; for others it is `captured` or none. */
export function tunnelOf(
  labels: Labels,
  captured: TunnelProtocol,
): { tunnelProtocol: TunnelProtocol; nativeTunnel: boolean } {
  const nativeTunnel = labels[TUNNEL_LABEL] === "http";
  return { tunnelProtocol: nativeTunnel ? TunnelProtocol.HBONE : captured, nativeTunnel };
}

/** undefined: no workload (finished, or without an address yet). */
export function translatePod(pod: Pod, view: WorkloadView): Address | undefined {
  const addresses = podIps(pod);
  const phase = pod.status?.phase;
  if (addresses.length === 0 || phase === "Succeeded" || phase === "Failed") return undefined;
  const { settings, services, node, policies, gateways } = view;
  const labels = labelsOf(pod);
  const captured = pod.metadata.annotations?.[REDIRECTION_ANNOTATION] === "enabled";
  const workloadName = workloadNameOf(pod);
  return create(AddressSchema, {
    type: {
      case: "workload",
      value: {
        uid: podUid(pod, settings),
        name: pod.metadata.name,
        namespace: pod.metadata.namespace ?? "",
        addresses: addresses.map(ipToBytes),
        network: settings.network,
        ...tunnelOf(labels, captured ? TunnelProtocol.HBONE : TunnelProtocol.NONE),
        trustDomain: trustDomainField(settings),
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
        services: servicesField(services),
        ...gateways,
        ...localityOfNode(node),
        ...sameNodeOf(pod, view.namespace, settings),
      },
    },
  });
}

function podIps({ status }: Pod): Ip[] {
  const texts =
    status?.podIPs?.map(({ ip }) => ip) ?? (status?.podIP === undefined ? [] : [status.podIP]);
  return texts.flatMap((text) => parseIp(text) ?? []);
}

function isReady({ metadata, status }: Pod): boolean {
  if (metadata.deletionTimestamp !== undefined) return false;
  return (
    status?.conditions?.some(({ type, status: value }) => type === "Ready" && value === "True") ??
    false
  );
}

/** A workload outside Kubernetes: always healthy, by address or by DNS name. */
export function translateWorkloadEntry(
  entry: WorkloadEntry,
  view: Omit<WorkloadView, "node" | "namespace">,
): Address | undefined {
  const { settings, services, policies, gateways } = view;
  const { spec, metadata } = entry;
  if (spec.address === undefined || spec.address === "" || spec.address.startsWith("unix:"))
    return undefined;
  const ip = parseIp(spec.address);
  const labels = workloadEntryLabels(entry);
  return create(AddressSchema, {
    type: {
      case: "workload",
      value: {
        uid: `${settings.clusterId}/networking.istio.io/WorkloadEntry/${metadata.namespace}/${metadata.name}`,
        name: metadata.name,
        namespace: metadata.namespace ?? "",
        addresses: ip === undefined ? [] : [ipToBytes(ip)],
        hostname: ip === undefined ? spec.address : "",
        network: spec.network ?? settings.network,
        ...tunnelOf(labels, TunnelProtocol.NONE),
        trustDomain: trustDomainField(settings),
        serviceAccount: spec.serviceAccount ?? "default",
        canonicalName: canonicalName(labels, metadata.name),
        canonicalRevision: canonicalRevision(labels),
        workloadType: WorkloadType.POD,
        workloadName: metadata.name,
        clusterId: settings.clusterId,
        authorizationPolicies: [...policies].sort(),
        services: servicesField(services),
        ...gateways,
        ...localityOfText(spec.locality),
        ...(spec.weight ? { capacity: spec.weight } : {}),
      },
    },
  });
}

/** The labels that select it: the object's own and those it gives its workload. */
export function workloadEntryLabels(entry: WorkloadEntry): Labels {
  return { ...labelsOf(entry), ...entry.spec.labels };
}
