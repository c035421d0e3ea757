// What must be translated again after an object came, changed or went: the keys of whatever its old or its
// new version has a say in. Too many would cost time, too few would leave something stale.

import type {
  AuthorizationPolicy,
  EndpointSlice,
  Gateway,
  GatewayClass,
  Namespace,
  PeerAuthentication,
  Pod,
  Resource,
  Service,
  ServiceEntry,
} from "@ambit/api/resources/kinds.ts";
import { keyOf, keyText } from "@ambit/common/resources/source.ts";
import { type Labels, labelsOf } from "../translate/labels.ts";
import { networkGatewaysOf } from "../translate/network-gateway.ts";
import { SAME_NODE } from "../translate/same-node.ts";
import { selectsWorkloads } from "../translate/peer-authentication.ts";
import { serviceSelector } from "../translate/service.ts";
import { serviceEntrySelector } from "../translate/service-entry.ts";
import type { MeshSettings } from "../translate/settings.ts";
import { instanceKey, USE_WAYPOINT } from "../translate/waypoint.ts";
import { type MeshObjects, podsOfSlice } from "./mesh-objects.ts";

/** The static policy stands under an empty key: it belongs to no object. */
export const STATIC_KEY = "";

/** Keys that one version of an object has a say in. Both versions are asked, after the change. */
export function* affectedBy(
  version: Resource,
  objects: MeshObjects,
  { rootNamespace, autoAllowWaypoints }: MeshSettings,
): Generator<string> {
  yield keyText(keyOf(version));
  switch (version.kind) {
    case "Service":
      yield* byService(version, objects);
      break;
    case "ServiceEntry":
      yield* byServiceEntry(version, objects);
      break;
    case "EndpointSlice":
      yield* byEndpointSlice(version, objects);
      break;
    case "AuthorizationPolicy":
      yield* byPolicy(version, objects, rootNamespace);
      break;
    case "PeerAuthentication":
      yield* byPeerAuthentication(version, objects, rootNamespace);
      break;
    case "Node":
      yield* objects.podsOnNode(version.metadata.name);
      break;
    case "Namespace":
      yield* byNamespace(version, objects);
      break;
    case "Gateway":
      yield* byGateway(version, objects);
      break;
    case "GatewayClass":
      yield* byGatewayClass(version, objects);
      break;
    case "Pod":
      if (autoAllowWaypoints) yield* byInstance(version);
      break;
    case "WorkloadEntry":
    case "ServiceAccount":
    case "Deployment":
    case "ConfigMap":
      break;
  }
}

/** The workloads its selector names, or the slices that list its endpoints and the pods in them. */
function* byService(service: Service, objects: MeshObjects): Generator<string> {
  const selector = serviceSelector(service);
  if (selector !== undefined) yield* selected(objects, selector, service.metadata.namespace);
  for (const slice of objects.slicesOf(service)) {
    yield keyText(keyOf(slice));
    if (selector === undefined) yield* podsOfSlice(slice);
  }
}

function* byServiceEntry(entry: ServiceEntry, objects: MeshObjects): Generator<string> {
  const selector = serviceEntrySelector(entry);
  if (selector !== undefined) yield* selected(objects, selector, entry.metadata.namespace);
}

/** Pods of a service that selects them do not depend on its slices. */
function* byEndpointSlice(slice: EndpointSlice, objects: MeshObjects): Generator<string> {
  const service = objects.serviceOf(slice);
  if (service !== undefined && serviceSelector(service) === undefined) yield* podsOfSlice(slice);
}

function* byPolicy(
  { spec, metadata }: AuthorizationPolicy,
  objects: MeshObjects,
  rootNamespace: string,
): Generator<string> {
  if (spec.selector === undefined) return;
  const { namespace = "" } = metadata;
  const scope = namespace === rootNamespace ? undefined : namespace;
  const labels = spec.selector.matchLabels ?? {};
  yield* selected(objects, labels, scope);
  yield* entriesWithEndpoints(objects, scope);
}

/** The static policy, the converted ones below it, and every workload whose mode may change. */
function* byPeerAuthentication(
  policy: PeerAuthentication,
  objects: MeshObjects,
  rootNamespace: string,
): Generator<string> {
  yield STATIC_KEY;
  const { namespace = "" } = policy.metadata;
  const scope = namespace === rootNamespace ? undefined : namespace;
  const selects = selectsWorkloads(policy);
  yield* selected(objects, selects ? (policy.spec.selector?.matchLabels ?? {}) : {}, scope);
  yield* entriesWithEndpoints(objects, scope);
  if (selects) return;
  for (const other of objects.peerAuthentications.within(scope)) yield keyText(keyOf(other));
}

/**
 * Its annotations and labels are defaults of what is in it, and its labels decide which waypoints admit
 * that. Its workloads depend on it only when it says something of them.
 */
function* byNamespace(namespace: Namespace, objects: MeshObjects): Generator<string> {
  const labels = labelsOf(namespace);
  const named = USE_WAYPOINT in labels || SAME_NODE in labels;
  for (const member of objects.membersOf(namespace.metadata.name)) {
    const isWorkload = member.kind === "Pod" || member.kind === "WorkloadEntry";
    if (!isWorkload || named || USE_WAYPOINT in labelsOf(member)) yield keyText(keyOf(member));
  }
}

/** Who goes through it, what it is made of, and the workloads of the network it leads to. */
function* byGateway(gateway: Gateway, objects: MeshObjects): Generator<string> {
  const key = keyText(keyOf(gateway));
  for (const user of objects.usersOf(key)) {
    const [kind, , name = ""] = user.split("/");
    if (kind !== "Namespace") yield user;
    else for (const member of objects.membersOf(name)) yield keyText(keyOf(member));
  }
  yield* objects.instancesOf(key);
  if (networkGatewaysOf(gateway).length === 0) return;
  for (const entry of objects.workloadEntries.all) yield keyText(keyOf(entry));
  yield* entriesWithEndpoints(objects);
}

/** The accounts of its pods are in a waypoint's policy. */
function* byInstance({ metadata }: Pod): Generator<string> {
  const gateway = instanceKey(metadata.labels ?? {}, metadata.namespace ?? "");
  if (gateway !== undefined) yield gateway;
}

function* byGatewayClass({ metadata }: GatewayClass, objects: MeshObjects): Generator<string> {
  for (const gateway of objects.gateways.all) {
    if (gateway.spec.gatewayClassName === metadata.name) yield* byGateway(gateway, objects);
  }
}

function* selected(objects: MeshObjects, selector: Labels, namespace?: string): Generator<string> {
  for (const workload of objects.selected(selector, namespace)) yield keyText(keyOf(workload));
}

/** Endpoints inside ServiceEntries are workloads too, translated with their entry. */
function* entriesWithEndpoints(objects: MeshObjects, namespace?: string): Generator<string> {
  for (const entry of objects.serviceEntries.within(namespace)) yield keyText(keyOf(entry));
}
