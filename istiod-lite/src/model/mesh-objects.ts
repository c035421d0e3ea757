// Every object the mesh is made of, and the joins among them: which services a workload is of, which
// workloads a selector names, what a slice refers to. Knows nothing of the protocol.

import type {
  EndpointSlice,
  Namespace,
  Pod,
  Resource,
  ResourceKind,
  Service,
  ServiceEntry,
  WorkloadEntry,
} from "@ambit/api/resources/kinds.ts";
import { keyOf, keyText, type ResourceKey } from "@ambit/common/resources/source.ts";
import {
  type ServiceEntryVisibility,
  type Visibility,
  visibilityIn,
} from "../mesh-config/mesh-config.ts";
import { endpointPod, sliceServiceName } from "../translate/endpoint-slice.ts";
import { type Labels, labelsMatch, labelsOf } from "../translate/labels.ts";
import { type NetworkGateway, networkGatewaysOf } from "../translate/network-gateway.ts";
import { isMeshService, serviceHostname, serviceSelector } from "../translate/service.ts";
import { meshHosts, serviceEntrySelector } from "../translate/service-entry.ts";
import { canaryKey, instanceKey, waypointKey } from "../translate/waypoint.ts";
import { workloadEntryLabels } from "../translate/workload.ts";
import { Hostnames } from "./hostnames.ts";
import { ObjectIndex } from "./object-index.ts";
import { targetKey, targetRefsOf } from "./policy-targets.ts";
import { ReferenceIndex } from "./reference-index.ts";
import { SelectorIndex } from "./selector-index.ts";

export class MeshObjects {
  readonly pods = new ObjectIndex((object) => object.kind === "Pod");
  readonly nodes = new ObjectIndex((object) => object.kind === "Node");
  readonly namespaces = new ObjectIndex((object) => object.kind === "Namespace");
  readonly services = new ObjectIndex((object) => object.kind === "Service");
  readonly endpointSlices = new ObjectIndex((object) => object.kind === "EndpointSlice");
  readonly serviceEntries = new ObjectIndex((object) => object.kind === "ServiceEntry");
  readonly workloadEntries = new ObjectIndex((object) => object.kind === "WorkloadEntry");
  readonly policies = new ObjectIndex((object) => object.kind === "AuthorizationPolicy");
  readonly peerAuthentications = new ObjectIndex((object) => object.kind === "PeerAuthentication");
  readonly gateways = new ObjectIndex((object) => object.kind === "Gateway");
  readonly gatewayClasses = new ObjectIndex((object) => object.kind === "GatewayClass");
  /** By kind; kinds that the mesh is not made of have none. */
  readonly #indexes = new Map<ResourceKind, ObjectIndex<Resource>>([
    ["Pod", this.pods],
    ["Node", this.nodes],
    ["Namespace", this.namespaces],
    ["Service", this.services],
    ["EndpointSlice", this.endpointSlices],
    ["ServiceEntry", this.serviceEntries],
    ["WorkloadEntry", this.workloadEntries],
    ["AuthorizationPolicy", this.policies],
    ["PeerAuthentication", this.peerAuthentications],
    ["Gateway", this.gateways],
    ["GatewayClass", this.gatewayClasses],
  ]);
  readonly hostnames = new Hostnames();
  /** Part of what claims to host names are made of: see reclaim(). */
  serviceEntryVisibility: ServiceEntryVisibility | undefined;
  readonly #clusterDomain: string;
  readonly #servicesBySelector = new SelectorIndex<Service>();
  readonly #entriesBySelector = new SelectorIndex<ServiceEntry>();
  readonly #slicesByService = new ReferenceIndex();
  readonly #slicesByPod = new ReferenceIndex();
  readonly #podsByNode = new ReferenceIndex();
  readonly #usersByWaypoint = new ReferenceIndex();
  readonly #podsByGateway = new ReferenceIndex();
  readonly #gatewaysByNetwork = new ReferenceIndex();
  readonly #policiesByTarget = new ReferenceIndex();

  constructor(clusterDomain: string) {
    this.#clusterDomain = clusterDomain;
  }

  /** Stores or, without a resource, removes. Returns what was there before. */
  set(key: ResourceKey, resource: Resource | undefined): Resource | undefined {
    const index = this.#indexes.get(key.kind);
    const before = resource === undefined ? index?.delete(key) : index?.put(resource);
    if (before !== undefined) this.#unjoin(keyText(key), before);
    if (resource !== undefined) this.#join(keyText(key), resource);
    return before;
  }

  #join(key: string, resource: Resource): void {
    const namespace = resource.metadata.namespace ?? "";
    for (const [index, target] of this.#references(resource)) index.add(target, key);
    if (resource.kind === "Service") {
      const selector = serviceSelector(resource);
      if (selector !== undefined && isMeshService(resource))
        this.#servicesBySelector.put(namespace, key, selector, resource);
    } else if (resource.kind === "ServiceEntry") {
      const selector = serviceEntrySelector(resource);
      if (selector !== undefined) this.#entriesBySelector.put(namespace, key, selector, resource);
    }
  }

  #unjoin(key: string, resource: Resource): void {
    const namespace = resource.metadata.namespace ?? "";
    for (const [index, target] of this.#references(resource)) index.delete(target, key);
    if (resource.kind === "Service") {
      const selector = serviceSelector(resource);
      if (selector !== undefined) this.#servicesBySelector.delete(namespace, key, selector);
    } else if (resource.kind === "ServiceEntry") {
      const selector = serviceEntrySelector(resource);
      if (selector !== undefined) this.#entriesBySelector.delete(namespace, key, selector);
    }
  }

  /** What the object names, and the index that knows who does. */
  *#references(resource: Resource): Generator<[ReferenceIndex, string]> {
    for (const key of waypointsNamedBy(resource)) yield [this.#usersByWaypoint, key];
    if (resource.kind === "Pod") {
      if (resource.spec.nodeName) yield [this.#podsByNode, resource.spec.nodeName];
      const gateway = instanceKey(labelsOf(resource), resource.metadata.namespace ?? "");
      if (gateway !== undefined) yield [this.#podsByGateway, gateway];
    } else if (resource.kind === "EndpointSlice") {
      for (const service of serviceOfSlice(resource)) yield [this.#slicesByService, service];
      for (const pod of podsOfSlice(resource)) yield [this.#slicesByPod, pod];
    } else if (resource.kind === "Gateway") {
      for (const { network } of networkGatewaysOf(resource))
        yield [this.#gatewaysByNetwork, network];
    } else if (resource.kind === "AuthorizationPolicy") {
      for (const ref of targetRefsOf(resource.spec)) {
        const target = targetKey(ref, resource.metadata.namespace ?? "");
        if (target !== undefined) yield [this.#policiesByTarget, target];
      }
    }
  }

  /** Updates the claim to host names; returns the keys of others whose claim may have changed for it. */
  claimHosts(key: string, resource: Resource | undefined): Set<string> {
    return this.hostnames.set(key, resource && this.#claimOf(key, resource));
  }

  #claimOf(key: string, resource: Resource) {
    if (resource.kind !== "Service" && resource.kind !== "ServiceEntry") return undefined;
    const isService = resource.kind === "Service";
    if (isService && !isMeshService(resource)) return undefined;
    const { namespace = "", creationTimestamp: createdAt = "" } = resource.metadata;
    const visibility = isService ? "PUBLIC" : this.visibilityOf(resource);
    if (visibility === "NONE") return undefined;
    const hosts = isService
      ? [serviceHostname(resource, { clusterDomain: this.#clusterDomain })]
      : meshHosts(resource);
    return { key, namespace, isService, isPrivate: visibility !== "PUBLIC", createdAt, hosts };
  }

  /** Claims again for the entries of a namespace, or of all; returns the keys of all concerned. */
  *reclaim(namespace?: string): Generator<string> {
    for (const entry of this.serviceEntries.within(namespace)) {
      const key = keyText(keyOf(entry));
      yield key;
      yield* this.claimHosts(key, entry);
    }
  }

  visibilityOf({ metadata }: ServiceEntry): Visibility {
    if (this.serviceEntryVisibility === undefined) return "PUBLIC";
    const namespace = this.namespaceObject(metadata.namespace ?? "");
    return visibilityIn(this.serviceEntryVisibility, namespace ? labelsOf(namespace) : {});
  }

  namespaceObject(name: string): Namespace | undefined {
    return this.namespaces.get(keyText({ kind: "Namespace", namespace: "", name }));
  }

  /** The hosts that the entry has to itself in its namespace. */
  hostsOf(entry: ServiceEntry): string[] {
    const key = keyText(keyOf(entry));
    return meshHosts(entry).filter((host) => this.hostnames.owns(key, host));
  }

  /** Keys of everything there is. */
  *keys(): Generator<string> {
    for (const index of this.#indexes.values()) yield* index.keys();
  }

  /** Services of the namespace that select the labels. */
  servicesSelecting(namespace: string, labels: Labels): Iterable<Service> {
    return this.#servicesBySelector.matching(namespace, labels);
  }

  /** ServiceEntries of the namespace that select the labels. */
  serviceEntriesSelecting(namespace: string, labels: Labels): Iterable<ServiceEntry> {
    return this.#entriesBySelector.matching(namespace, labels);
  }

  /** Pods and WorkloadEntries with these labels; in all namespaces when none is given. */
  *selected(selector: Labels, namespace?: string): Generator<Pod | WorkloadEntry> {
    for (const pod of this.pods.within(namespace)) {
      if (labelsMatch(selector, labelsOf(pod))) yield pod;
    }
    for (const entry of this.workloadEntries.within(namespace)) {
      if (labelsMatch(selector, workloadEntryLabels(entry))) yield entry;
    }
  }

  *podsOnNode(node: string): Generator<string> {
    yield* this.#podsByNode.of(node);
  }

  /** Keys of the objects whose labels name the Gateway as their waypoint; of Namespaces too. */
  *usersOf(gatewayKey: string): Generator<string> {
    yield* this.#usersByWaypoint.of(gatewayKey);
  }

  /** Keys of the pods that the Gateway is made of. */
  *instancesOf(gatewayKey: string): Generator<string> {
    yield* this.#podsByGateway.of(gatewayKey);
  }

  /** Keys of the policies that name the object as their target. */
  *policiesFor(targetKeyText: string): Generator<string> {
    yield* this.#policiesByTarget.of(targetKeyText);
  }

  /** The gateway that leads into the network: of several always the same one. */
  networkGateway(network: string): NetworkGateway | undefined {
    const [first] = [...this.#gatewaysByNetwork.of(network)].sort();
    const gateway = first === undefined ? undefined : this.gateways.get(first);
    return gateway && networkGatewaysOf(gateway)[0];
  }

  /** Services and workloads of the namespace. */
  *membersOf(namespace: string): Generator<Pod | WorkloadEntry | Service | ServiceEntry> {
    yield* this.services.inNamespace(namespace);
    yield* this.serviceEntries.inNamespace(namespace);
    yield* this.pods.inNamespace(namespace);
    yield* this.workloadEntries.inNamespace(namespace);
  }

  /** The service that the slice belongs to, when it is known and of the mesh. */
  serviceOf(slice: EndpointSlice): Service | undefined {
    const [key] = serviceOfSlice(slice);
    const service = key === undefined ? undefined : this.services.get(key);
    return service !== undefined && isMeshService(service) ? service : undefined;
  }

  *slicesOf(service: Service): Generator<EndpointSlice> {
    for (const key of this.#slicesByService.of(keyText(keyOf(service)))) {
      yield this.endpointSlices.get(key)!;
    }
  }

  /** Slices that name the pod, with their services, as far as those select nothing themselves. */
  *listedIn(pod: Pod): Generator<{ slice: EndpointSlice; service: Service }> {
    for (const key of this.#slicesByPod.of(keyText(keyOf(pod)))) {
      const slice = this.endpointSlices.get(key)!;
      const service = this.serviceOf(slice);
      if (service !== undefined && serviceSelector(service) === undefined) yield { slice, service };
    }
  }
}

function serviceOfSlice(slice: EndpointSlice): string[] {
  const name = sliceServiceName(slice);
  const { namespace = "" } = slice.metadata;
  return name === undefined ? [] : [keyText({ kind: "Service", namespace, name })];
}

/** Keys of the pods that the slice names. */
export function podsOfSlice(slice: EndpointSlice): string[] {
  return slice.endpoints.flatMap((endpoint) => {
    const pod = endpointPod(endpoint, slice);
    return pod === undefined ? [] : [keyText({ kind: "Pod", ...pod })];
  });
}

/** A namespace names waypoints for what is in it. */
function* waypointsNamedBy(resource: Resource): Generator<string> {
  const { name, namespace = "" } = resource.metadata;
  const home = resource.kind === "Namespace" ? name : namespace;
  const carriers = [labelsOf(resource)];
  if (resource.kind === "ServiceEntry")
    carriers.push(...(resource.spec.endpoints ?? []).map(({ labels = {} }) => labels));
  for (const labels of carriers) {
    const keys = [waypointKey(labels, home), canaryKey(labels, home)];
    for (const key of keys) if (key !== undefined && key !== "none") yield key;
  }
}
