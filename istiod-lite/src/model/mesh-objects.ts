// Every object the mesh is made of, and the joins among them: which services a workload is of, which
// workloads a selector names, what a slice refers to. Knows nothing of the protocol.

import type {
  EndpointSlice,
  Pod,
  Resource,
  ResourceKind,
  Service,
  ServiceEntry,
  WorkloadEntry,
} from "@ambit/api/resources/kinds.ts";
import { keyOf, keyText, type ResourceKey } from "@ambit/common/resources/source.ts";
import { endpointPod, sliceServiceName } from "../translate/endpoint-slice.ts";
import { type Labels, labelsMatch, labelsOf } from "../translate/labels.ts";
import { isMeshService, serviceHostname, serviceSelector } from "../translate/service.ts";
import { meshHosts, serviceEntrySelector } from "../translate/service-entry.ts";
import { workloadEntryLabels } from "../translate/workload.ts";
import { Hostnames } from "./hostnames.ts";
import { ObjectIndex } from "./object-index.ts";
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
  ]);
  readonly hostnames = new Hostnames();
  readonly #clusterDomain: string;
  readonly #servicesBySelector = new SelectorIndex<Service>();
  readonly #entriesBySelector = new SelectorIndex<ServiceEntry>();
  readonly #slicesByService = new ReferenceIndex();
  readonly #slicesByPod = new ReferenceIndex();
  readonly #podsByNode = new ReferenceIndex();

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
    if (resource.kind === "Pod") {
      if (resource.spec.nodeName) this.#podsByNode.add(resource.spec.nodeName, key);
    } else if (resource.kind === "Service") {
      const selector = serviceSelector(resource);
      if (selector !== undefined && isMeshService(resource))
        this.#servicesBySelector.put(namespace, key, selector, resource);
    } else if (resource.kind === "ServiceEntry") {
      const selector = serviceEntrySelector(resource);
      if (selector !== undefined) this.#entriesBySelector.put(namespace, key, selector, resource);
    } else if (resource.kind === "EndpointSlice") {
      for (const service of serviceOfSlice(resource)) this.#slicesByService.add(service, key);
      for (const pod of podsOfSlice(resource)) this.#slicesByPod.add(pod, key);
    }
  }

  #unjoin(key: string, resource: Resource): void {
    const namespace = resource.metadata.namespace ?? "";
    if (resource.kind === "Pod") {
      if (resource.spec.nodeName) this.#podsByNode.delete(resource.spec.nodeName, key);
    } else if (resource.kind === "Service") {
      const selector = serviceSelector(resource);
      if (selector !== undefined) this.#servicesBySelector.delete(namespace, key, selector);
    } else if (resource.kind === "ServiceEntry") {
      const selector = serviceEntrySelector(resource);
      if (selector !== undefined) this.#entriesBySelector.delete(namespace, key, selector);
    } else if (resource.kind === "EndpointSlice") {
      for (const service of serviceOfSlice(resource)) this.#slicesByService.delete(service, key);
      for (const pod of podsOfSlice(resource)) this.#slicesByPod.delete(pod, key);
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
    const hosts = isService
      ? [serviceHostname(resource, { clusterDomain: this.#clusterDomain })]
      : meshHosts(resource);
    return { key, namespace, isService, createdAt, hosts };
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
