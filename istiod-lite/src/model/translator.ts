// From the key of an object to what ztunnels are sent for it: gathers what its translation depends on, and
// calls the translation of its kind.

import type {
  AuthorizationPolicy,
  EndpointSlice,
  Gateway,
  Namespace,
  PeerAuthentication,
  Pod,
  Service,
  ServiceEntry,
  WorkloadEntry,
} from "@ambit/api/resources/kinds.ts";
import { keyOf, keyText } from "@ambit/common/resources/source.ts";
import type { ObjectStatus } from "../status/object-status.ts";
import {
  peerAuthenticationStatus,
  waypointPolicyStatus,
  ztunnelPolicyStatus,
} from "../status/rule-verdicts.ts";
import { serviceEntryStatus, serviceStatus, workloadEntryStatus } from "../status/verdicts.ts";
import { translateAuthorizationPolicy } from "../translate/authorization-policy.ts";
import { translateEndpointSlice } from "../translate/endpoint-slice.ts";
import { isTrue, type Labels, labelsOf } from "../translate/labels.ts";
import {
  networkGatewayAddress,
  networkGatewaysOf,
  networkGatewayWorkload,
} from "../translate/network-gateway.ts";
import {
  inheritedStrict,
  namespaceLevel,
  portLevelPolicy,
  staticStrictPolicy,
} from "../translate/peer-authentication.ts";
import {
  entryPortsOfService,
  entryPortsOfServiceEntry,
  podPortsOfService,
  podPortsOfServiceEntry,
  type ServedService,
  slicePortsOfService,
} from "../translate/served-ports.ts";
import {
  isMeshService,
  serviceResourceName,
  type ServiceWaypoints,
  translateService,
} from "../translate/service.ts";
import { serviceEntryServices, serviceEntryWorkloads } from "../translate/service-entry.ts";
import type { MeshSettings } from "../translate/settings.ts";
import {
  translatePod,
  translateWorkloadEntry,
  type WorkloadGateways,
  workloadEntryLabels,
  type WorkloadView,
} from "../translate/workload.ts";
import { STATIC_KEY } from "./affected.ts";
import type { MeshObjects } from "./mesh-objects.ts";
import { addressOutput, authorizationOutput, type Output } from "./output.ts";
import { targetsOf } from "./policy-targets.ts";
import { policiesSelecting } from "./selected-policies.ts";
import { waypointPolicy, waypointPolicyKeys } from "./waypoint-policies.ts";
import { type Attachment, type ServiceAttachment, Waypoints } from "./waypoints.ts";

export class Translator {
  readonly #objects: MeshObjects;
  readonly #waypoints: Waypoints;
  readonly #onStatus: (status: ObjectStatus) => void;

  /** `onStatus` hears what becomes of each object whose author is told, when it is translated. */
  constructor(objects: MeshObjects, onStatus: (status: ObjectStatus) => void) {
    this.#objects = objects;
    this.#waypoints = new Waypoints(objects);
    this.#onStatus = onStatus;
  }

  /** Nothing when the object is gone, or means nothing to ztunnels. */
  translate(key: string, settings: MeshSettings): Output[] {
    if (key === STATIC_KEY) return this.#staticPolicy(settings);
    const objects = this.#objects;
    const kind = key.slice(0, key.indexOf("/"));
    switch (kind) {
      case "Pod":
        return apply(objects.pods.get(key), (pod) => this.#pod(pod, settings));
      case "Service":
        return apply(objects.services.get(key), (service) => this.#service(service, settings));
      case "WorkloadEntry":
        return apply(objects.workloadEntries.get(key), (it) => this.#workloadEntry(it, settings));
      case "ServiceEntry":
        return apply(objects.serviceEntries.get(key), (it) => this.#serviceEntry(it, settings));
      case "EndpointSlice":
        return apply(objects.endpointSlices.get(key), (it) => this.#endpointSlice(it, settings));
      case "AuthorizationPolicy":
        return apply(objects.policies.get(key), (policy) => this.#policy(policy, settings));
      case "PeerAuthentication":
        return apply(objects.peerAuthentications.get(key), (it) =>
          this.#peerAuthentication(it, settings),
        );
      case "Gateway":
        return apply(objects.gateways.get(key), (gateway) => this.#gateway(gateway, settings));
      default:
        return [];
    }
  }

  #pod(pod: Pod, settings: MeshSettings): Output[] {
    const objects = this.#objects;
    const name = pod.spec.nodeName ?? "";
    const labels = labelsOf(pod);
    const { namespace = "" } = pod.metadata;
    const found = this.#gatewaysOf(namespace, labels, settings);
    const view: WorkloadView = {
      settings,
      gateways: found.gateways,
      services: this.#servicesOfPod(pod, labels, settings),
      node: objects.nodes.get(keyText({ kind: "Node", namespace: "", name })),
      namespace: objects.namespaceObject(namespace),
      policies: [
        ...policiesSelecting(objects, { namespace, labels }, settings),
        ...this.#waypointPolicies(this.#frontsOf(pod, labels), found.attachment, settings),
      ],
    };
    const address = translatePod(pod, view);
    return address === undefined ? [] : [addressOutput(address)];
  }

  #servicesOfPod(pod: Pod, labels: Labels, settings: MeshSettings): ServedService[] {
    const objects = this.#objects;
    const namespace = pod.metadata.namespace ?? "";
    const served: ServedService[] = [];
    for (const service of objects.servicesSelecting(namespace, labels)) {
      const name = serviceResourceName(service, settings);
      served.push({ name, ports: podPortsOfService(pod, service) });
    }
    for (const { slice, service } of objects.listedIn(pod)) {
      const name = serviceResourceName(service, settings);
      served.push({ name, ports: slicePortsOfService(slice, service) });
    }
    for (const entry of objects.serviceEntriesSelecting(namespace, labels)) {
      const ports = podPortsOfServiceEntry(pod, entry);
      for (const host of objects.hostsOf(entry))
        served.push({ name: `${namespace}/${host}`, ports });
    }
    return served;
  }

  #workloadEntry(entry: WorkloadEntry, settings: MeshSettings): Output[] {
    const objects = this.#objects;
    const labels = workloadEntryLabels(entry);
    const { namespace = "" } = entry.metadata;
    const services: ServedService[] = [];
    for (const service of objects.servicesSelecting(namespace, labels)) {
      const name = serviceResourceName(service, settings);
      services.push({ name, ports: entryPortsOfService(entry.spec, service) });
    }
    for (const selecting of objects.serviceEntriesSelecting(namespace, labels)) {
      const ports = entryPortsOfServiceEntry(entry.spec, selecting);
      for (const host of objects.hostsOf(selecting))
        services.push({ name: `${namespace}/${host}`, ports });
    }
    const { network = settings.network } = entry.spec;
    const found = this.#gatewaysOf(namespace, labelsOf(entry), settings, network);
    const policies = [
      ...policiesSelecting(objects, { namespace, labels }, settings),
      ...this.#waypointPolicies(this.#frontsOf(entry, labels), found.attachment, settings),
    ];
    this.#onStatus(workloadEntryStatus(entry, found.attachment));
    const address = translateWorkloadEntry(entry, {
      settings,
      gateways: found.gateways,
      services,
      policies,
    });
    return address === undefined ? [] : [addressOutput(address)];
  }

  #service(service: Service, settings: MeshSettings): Output[] {
    if (!isMeshService(service)) return [];
    const namespace = this.#objects.namespaceObject(service.metadata.namespace ?? "");
    const attachment = this.#attachmentOf(service, settings);
    const waypoints = serviceWaypoints(service, namespace, attachment);
    this.#onStatus(serviceStatus(service, attachment, waypoints.ingressUseWaypoint));
    const address = translateService(service, namespace, waypoints, settings);
    return address === undefined ? [] : [addressOutput(address)];
  }

  #serviceEntry(entry: ServiceEntry, settings: MeshSettings): Output[] {
    const objects = this.#objects;
    const { namespace = "" } = entry.metadata;
    const visibility = objects.visibilityOf(entry);
    const attachment = this.#attachmentOf(entry, settings);
    const object = objects.namespaceObject(namespace);
    const waypoints = serviceWaypoints(entry, object, attachment);
    const configured = settings.serviceEntryVisibility !== undefined;
    this.#onStatus(
      serviceEntryStatus(entry, {
        attachment,
        ingress: waypoints.ingressUseWaypoint,
        ...(configured && { visibility }),
      }),
    );
    const hosts = objects.hostsOf(entry);
    const key = keyText(keyOf(entry));
    const claims = hosts.map((host) => ({
      host,
      canonical: objects.hostnames.isCanonical(key, host),
    }));
    const view = {
      settings,
      hosts,
      policies: [
        ...policiesSelecting(objects, { namespace, labels: labelsOf(entry) }, settings),
        ...this.#waypointPolicies([], attachment, settings),
      ],
      gateways: (own: Labels | undefined, network: string) =>
        this.#gatewaysOf(namespace, own, settings, network).gateways,
    };
    const services = { claims, namespace: object, waypoints, visibility, settings };
    return [...serviceEntryServices(entry, services), ...serviceEntryWorkloads(entry, view)].map(
      addressOutput,
    );
  }

  #endpointSlice(slice: EndpointSlice, settings: MeshSettings): Output[] {
    const service = this.#objects.serviceOf(slice);
    if (service === undefined) return [];
    return translateEndpointSlice(slice, service, settings).map(addressOutput);
  }

  /** The gateways into other networks that the object stands for, and a waypoint's own policy. */
  #gateway(gateway: Gateway, settings: MeshSettings): Output[] {
    const waypoint = this.#waypoints.byKey(keyText(keyOf(gateway)), settings);
    const policy = waypoint && waypointPolicy(this.#objects, waypoint, settings);
    const outputs = networkGatewaysOf(gateway).map((each) =>
      addressOutput(networkGatewayWorkload(each, settings)),
    );
    return policy === undefined ? outputs : [...outputs, authorizationOutput(policy)];
  }

  /** Services that the workload is an endpoint of. */
  *#frontsOf(workload: Pod | WorkloadEntry, labels: Labels): Generator<Service | ServiceEntry> {
    const objects = this.#objects;
    const { namespace = "" } = workload.metadata;
    yield* objects.servicesSelecting(namespace, labels);
    yield* objects.serviceEntriesSelecting(namespace, labels);
    if (workload.kind !== "Pod") return;
    for (const { service } of objects.listedIn(workload)) yield service;
  }

  /** Of the waypoints before a workload: its services' and its own. */
  #waypointPolicies(
    fronts: Iterable<Service | ServiceEntry>,
    own: Attachment,
    settings: MeshSettings,
  ): string[] {
    if (!settings.autoAllowWaypoints) return [];
    const waypoints = Array.from(fronts, (front) => this.#attachmentOf(front, settings).waypoint);
    return waypointPolicyKeys(this.#objects, [...waypoints, own.waypoint], settings);
  }

  #attachmentOf(service: Service | ServiceEntry, settings: MeshSettings): ServiceAttachment {
    const confined =
      service.kind === "ServiceEntry" && this.#objects.visibilityOf(service) === "NAMESPACE";
    return this.#waypoints.ofService(service, settings, confined);
  }

  /** Without labels it is an endpoint that only stands for a host name: it has no waypoint. */
  #gatewaysOf(
    namespace: string,
    labels: Labels | undefined,
    settings: MeshSettings,
    network = settings.network,
  ): { readonly gateways: WorkloadGateways; readonly attachment: Attachment } {
    const remote = network === settings.network ? undefined : this.#objects.networkGateway(network);
    const networkGateway = remote && { networkGateway: networkGatewayAddress(remote) };
    if (labels === undefined) return { gateways: networkGateway ?? {}, attachment: {} };
    const instance = this.#waypoints.ofInstance(namespace, labels, settings);
    if (instance !== undefined) {
      const tunnel = instance.binding && { applicationTunnel: instance.binding };
      return { gateways: { ...tunnel, ...networkGateway }, attachment: {} };
    }
    const attachment = this.#waypoints.ofWorkload(namespace, labels, settings);
    const waypoint = attachment.waypoint && { waypoint: attachment.waypoint.address };
    return { gateways: { ...waypoint, ...networkGateway }, attachment };
  }

  #policy(policy: AuthorizationPolicy, settings: MeshSettings): Output[] {
    const translated = translateAuthorizationPolicy(policy, settings);
    if (translated === undefined) {
      const targets = targetsOf(policy, this.#objects, this.#waypoints, settings);
      this.#onStatus(waypointPolicyStatus(policy, targets));
      return [];
    }
    this.#onStatus(ztunnelPolicyStatus(policy, translated, settings));
    const { authorization } = translated;
    return authorization === undefined ? [] : [authorizationOutput(authorization)];
  }

  #staticPolicy({ rootNamespace }: MeshSettings): Output[] {
    const needed = this.#objects.peerAuthentications.size > 0;
    return needed ? [authorizationOutput(staticStrictPolicy(rootNamespace))] : [];
  }

  #peerAuthentication(policy: PeerAuthentication, settings: MeshSettings): Output[] {
    const { namespace = "" } = policy.metadata;
    const { rootNamespace } = settings;
    const inherited = inheritedStrict(this.#peerAuthenticationsOf, namespace, rootNamespace);
    const ofRoot = namespace === rootNamespace;
    const converted = ofRoot ? undefined : portLevelPolicy(policy, inherited);
    const counts = namespaceLevel(this.#peerAuthenticationsOf, namespace);
    const resource = converted && `${namespace}/${converted.name}`;
    this.#onStatus(peerAuthenticationStatus(policy, counts, resource, settings));
    return converted === undefined ? [] : [authorizationOutput(converted)];
  }

  readonly #peerAuthenticationsOf = (namespace: string) =>
    this.#objects.peerAuthentications.inNamespace(namespace);
}

const INGRESS_USE_WAYPOINT = "istio.io/ingress-use-waypoint";

/** The object's label on ingress beats its namespace's. */
function serviceWaypoints(
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

function apply<T>(object: T | undefined, translate: (object: T) => Output[]): Output[] {
  return object === undefined ? [] : translate(object);
}
