// What stands before a service or a workload: waypoints, gateways of networks, and the policies of those
// waypoints that let nobody else through.

import type {
  Namespace,
  Pod,
  Service,
  ServiceEntry,
  WorkloadEntry,
} from "@ambit/api/resources/kinds.ts";
import { isTrue, type Labels, labelsOf } from "../translate/labels.ts";
import { networkGatewayAddress } from "../translate/network-gateway.ts";
import type { ServiceWaypoints } from "../translate/service.ts";
import type { WorkloadGateways } from "../translate/workload.ts";
import type { Translation } from "./translation.ts";
import { waypointPolicyKeys } from "./waypoint-policies.ts";
import type { Attachment, ServiceAttachment } from "./waypoints.ts";

export function attachmentOf(
  service: Service | ServiceEntry,
  { objects, waypoints, settings }: Translation,
): ServiceAttachment {
  const confined = service.kind === "ServiceEntry" && objects.visibilityOf(service) === "NAMESPACE";
  return waypoints.ofService(service, settings, confined);
}

const INGRESS_USE_WAYPOINT = "istio.io/ingress-use-waypoint";

/** The object's label on ingress beats its namespace's. */
export function serviceWaypoints(
  object: Service | ServiceEntry,
  namespace: Namespace | undefined,
  { waypoint, weighted }: ServiceAttachment,
): ServiceWaypoints {
  if (waypoint === undefined) return { ingressUseWaypoint: false };
  const wish =
    labelsOf(object)[INGRESS_USE_WAYPOINT] ?? namespace?.metadata.labels?.[INGRESS_USE_WAYPOINT];
  return {
    waypoint: waypoint.address,
    ...(weighted && { weightedWaypoints: [...weighted] }),
    ingressUseWaypoint: isTrue(wish),
  };
}

/** What a workload's gateways are made of. */
interface Placed {
  readonly namespace: string;
  /** Missing: an endpoint that only stands for a host name, which has no waypoint. */
  readonly labels: Labels | undefined;
  /** Missing: the mesh's own. */
  readonly network?: string | undefined;
}

export function gatewaysOf(
  { namespace, labels, network }: Placed,
  { objects, waypoints, settings }: Translation,
): { readonly gateways: WorkloadGateways; readonly attachment: Attachment } {
  const isLocal = network === undefined || network === settings.network;
  const remote = isLocal ? undefined : objects.networkGateway(network);
  const networkGateway = remote && { networkGateway: networkGatewayAddress(remote) };
  if (labels === undefined) return { gateways: networkGateway ?? {}, attachment: {} };
  const instance = waypoints.ofInstance(namespace, labels, settings);
  if (instance !== undefined) {
    const tunnel = instance.binding && { applicationTunnel: instance.binding };
    return { gateways: { ...tunnel, ...networkGateway }, attachment: {} };
  }
  const attachment = waypoints.ofWorkload(namespace, labels, settings);
  const waypoint = attachment.waypoint && { waypoint: attachment.waypoint.address };
  return { gateways: { ...waypoint, ...networkGateway }, attachment };
}

/** Keys of the policies of the waypoints before a workload: its services' and its own. */
export function policiesBefore(
  fronts: Iterable<Service | ServiceEntry>,
  own: Attachment,
  translation: Translation,
): string[] {
  const { objects, settings } = translation;
  if (!settings.autoAllowWaypoints) return [];
  const waypoints = Array.from(fronts, (front) => attachmentOf(front, translation).waypoint);
  return waypointPolicyKeys(objects, [...waypoints, own.waypoint], settings);
}

/** Services that the workload is an endpoint of. */
export function* frontsOf(
  workload: Pod | WorkloadEntry,
  labels: Labels,
  { objects }: Translation,
): Generator<Service | ServiceEntry> {
  const { namespace = "" } = workload.metadata;
  yield* objects.servicesSelecting(namespace, labels);
  yield* objects.serviceEntriesSelecting(namespace, labels);
  if (workload.kind !== "Pod") return;
  for (const { service } of objects.listedIn(workload)) yield service;
}
