// The mesh as the control plane knows it, kept up to date incrementally: an event marks what depends on
// it, and only that is translated again at the next flush. Emits resources whose content changed.

import { toBinary } from "@bufbuild/protobuf";
import { AuthorizationSchema, type Authorization } from "@ambit/api/gen/istio/authorization_pb.ts";
import { type Address, AddressSchema } from "@ambit/api/gen/istio/workload_pb.ts";
import type {
  AuthorizationPolicy,
  PeerAuthentication,
  Pod,
  Resource,
  Service,
  ServiceEntry,
  WorkloadEntry,
} from "@ambit/api/resources/kinds.ts";
import { keyOf, keyText, type ResourceEvent } from "@ambit/common/resources/source.ts";
import {
  TYPE_ADDRESS,
  TYPE_AUTHORIZATION,
  contentVersion,
  type XdsChange,
  type XdsResource,
} from "@ambit/common/xds/resource-type.ts";
import {
  translateAuthorizationPolicy,
  type TranslatedPolicy,
} from "../translate/authorization-policy.ts";
import { addressAliases, addressName } from "../translate/address-names.ts";
import { type Labels, labelsMatch, labelsOf } from "../translate/labels.ts";
import {
  effectivePeerAuthentication,
  inheritedStrict,
  portLevelPolicy,
  portPolicyName,
  selectsWorkloads,
  STATIC_STRICT_NAME,
  staticStrictPolicy,
} from "../translate/peer-authentication.ts";
import { translateService } from "../translate/service.ts";
import { translateServiceEntry } from "../translate/service-entry.ts";
import type { MeshSettings } from "../translate/settings.ts";
import { translatePod, translateWorkloadEntry, type WorkloadView } from "../translate/workload.ts";
import { ObjectIndex } from "./object-index.ts";

/** The status of a policy, to be written back to its object. */
export interface PolicyStatus {
  readonly policy: AuthorizationPolicy;
  readonly translated: TranslatedPolicy;
}

interface Output {
  readonly typeUrl: string;
  readonly resource: XdsResource;
}

export class MeshModel {
  readonly #settings: MeshSettings;
  readonly pods = new ObjectIndex<"Pod">();
  readonly services = new ObjectIndex<"Service">();
  readonly nodes = new ObjectIndex<"Node">();
  readonly policies = new ObjectIndex<"AuthorizationPolicy">();
  readonly peerAuthentications = new ObjectIndex<"PeerAuthentication">();
  readonly workloadEntries = new ObjectIndex<"WorkloadEntry">();
  readonly serviceEntries = new ObjectIndex<"ServiceEntry">();
  /** Objects to translate again, by key. The static policy stands under an empty key. */
  readonly #dirty = new Set<string>();
  /** What each object was translated to. */
  readonly #outputs = new Map<string, readonly Output[]>();
  #statuses: PolicyStatus[] = [];
  /** Translations done so far; tests hold incrementality against it. */
  translations = 0;

  constructor(settings: MeshSettings) {
    this.#settings = settings;
  }

  get dirty(): boolean {
    return this.#dirty.size > 0;
  }

  apply(event: ResourceEvent): void {
    if (event.type === "upsert") this.#put(event.resource);
    else this.#delete(event);
  }

  /** Translates what is marked; one change per type that has any. */
  flush(): XdsChange[] {
    const changes = new Map<string, { upserts: Map<string, XdsResource>; removed: Set<string> }>();
    const changeOf = (typeUrl: string) =>
      changes.getOrInsertComputed(typeUrl, () => ({
        upserts: new Map<string, XdsResource>(),
        removed: new Set<string>(),
      }));
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    for (const key of dirty) {
      const before = this.#outputs.get(key) ?? [];
      const after = this.#translate(key);
      this.#outputs.set(key, after);
      if (after.length === 0) this.#outputs.delete(key);
      for (const { typeUrl, resource } of before) {
        const kept = after.some(
          (output) => output.typeUrl === typeUrl && output.resource.name === resource.name,
        );
        if (!kept) changeOf(typeUrl).removed.add(resource.name);
      }
      for (const { typeUrl, resource } of after) {
        const old = before.find(
          (output) => output.typeUrl === typeUrl && output.resource.name === resource.name,
        );
        if (old?.resource.version !== resource.version)
          changeOf(typeUrl).upserts.set(resource.name, resource);
      }
    }
    return [...changes].map(([typeUrl, { upserts, removed }]) => ({
      typeUrl,
      upserts: [...upserts.values()],
      removed: [...removed].filter((name) => !upserts.has(name)),
    }));
  }

  /** Statuses of the policies translated since the last call. */
  takeStatuses(): PolicyStatus[] {
    const statuses = this.#statuses;
    this.#statuses = [];
    return statuses;
  }

  #put(resource: Resource): void {
    switch (resource.kind) {
      case "Pod":
        this.pods.put(resource);
        this.#dirty.add(keyText(keyOf(resource)));
        break;
      case "WorkloadEntry":
        this.workloadEntries.put(resource);
        this.#dirty.add(keyText(keyOf(resource)));
        break;
      case "ServiceEntry":
        this.serviceEntries.put(resource);
        this.#dirty.add(keyText(keyOf(resource)));
        break;
      case "Service":
        this.#markService(resource, this.services.put(resource));
        break;
      case "AuthorizationPolicy":
        this.#markPolicy(resource, this.policies.put(resource));
        break;
      case "PeerAuthentication":
        this.#markPeerAuthentication(resource, this.peerAuthentications.put(resource));
        break;
      case "Node":
        this.nodes.put(resource);
        this.#markNode(resource.metadata.name);
        break;
      case "Namespace":
      case "ServiceAccount":
      case "Deployment":
      case "EndpointSlice":
        break;
    }
  }

  #delete({ key }: Extract<ResourceEvent, { type: "delete" }>): void {
    switch (key.kind) {
      case "Pod":
        this.pods.delete(key);
        this.#dirty.add(keyText(key));
        break;
      case "WorkloadEntry":
        this.workloadEntries.delete(key);
        this.#dirty.add(keyText(key));
        break;
      case "ServiceEntry":
        this.serviceEntries.delete(key);
        this.#dirty.add(keyText(key));
        break;
      case "Service":
        this.#markService(undefined, this.services.delete(key));
        break;
      case "AuthorizationPolicy":
        this.#markPolicy(undefined, this.policies.delete(key));
        break;
      case "PeerAuthentication":
        this.#markPeerAuthentication(undefined, this.peerAuthentications.delete(key));
        break;
      case "Node":
        this.nodes.delete(key);
        this.#markNode(key.name);
        break;
      case "Namespace":
      case "ServiceAccount":
      case "Deployment":
      case "EndpointSlice":
        break;
    }
  }

  /** The service itself, and the workloads that the old or the new selector names. */
  #markService(after: Service | undefined, before: Service | undefined): void {
    for (const service of [after, before]) {
      if (service === undefined) continue;
      this.#dirty.add(keyText(keyOf(service)));
      const selector = service.spec?.selector;
      if (selector !== undefined) this.#markWorkloads(selector, service.metadata.namespace ?? "");
    }
  }

  #markPolicy(
    after: AuthorizationPolicy | undefined,
    before: AuthorizationPolicy | undefined,
  ): void {
    for (const policy of [after, before]) {
      if (policy === undefined) continue;
      this.#dirty.add(keyText(keyOf(policy)));
      const { selector } = policy.spec;
      const namespace = policy.metadata.namespace ?? "";
      if (selector === undefined) continue;
      this.#markWorkloads(
        selector.matchLabels ?? {},
        namespace === this.#settings.rootNamespace ? undefined : namespace,
      );
    }
  }

  /** The static policy, the converted ones below it, and every workload whose mode may change. */
  #markPeerAuthentication(
    after: PeerAuthentication | undefined,
    before: PeerAuthentication | undefined,
  ): void {
    this.#dirty.add(STATIC_KEY);
    for (const policy of [after, before]) {
      if (policy === undefined) continue;
      this.#dirty.add(keyText(keyOf(policy)));
      const namespace = policy.metadata.namespace ?? "";
      const meshWide = namespace === this.#settings.rootNamespace;
      const selector = selectsWorkloads(policy) ? (policy.spec.selector?.matchLabels ?? {}) : {};
      this.#markWorkloads(selector, meshWide ? undefined : namespace);
      if (selectsWorkloads(policy)) continue;
      const below = meshWide
        ? this.peerAuthentications.all
        : this.peerAuthentications.inNamespace(namespace);
      for (const other of below) this.#dirty.add(keyText(keyOf(other)));
    }
  }

  #markWorkloads(selector: Labels, namespace: string | undefined): void {
    const pods = namespace === undefined ? this.pods.all : this.pods.inNamespace(namespace);
    for (const pod of pods) {
      if (labelsMatch(selector, labelsOf(pod))) this.#dirty.add(keyText(keyOf(pod)));
    }
    const entries =
      namespace === undefined
        ? this.workloadEntries.all
        : this.workloadEntries.inNamespace(namespace);
    for (const entry of entries) {
      if (labelsMatch(selector, entryLabels(entry))) this.#dirty.add(keyText(keyOf(entry)));
    }
  }

  #markNode(name: string): void {
    for (const pod of this.pods.all)
      if (pod.spec.nodeName === name) this.#dirty.add(keyText(keyOf(pod)));
  }

  #translate(key: string): Output[] {
    this.translations++;
    if (key === STATIC_KEY) {
      const needed = this.peerAuthentications.size > 0;
      return needed ? [authorizationOutput(staticStrictPolicy(this.#settings.rootNamespace))] : [];
    }
    const pod = this.pods.get(key);
    if (pod !== undefined)
      return addressOutputs(translatePod(pod, this.#viewOf(pod, labelsOf(pod))));
    const service = this.services.get(key);
    if (service !== undefined) return addressOutputs(translateService(service, this.#settings));
    const entry = this.workloadEntries.get(key);
    if (entry !== undefined)
      return addressOutputs(translateWorkloadEntry(entry, this.#viewOf(entry, entryLabels(entry))));
    const serviceEntry = this.serviceEntries.get(key);
    if (serviceEntry !== undefined) return this.#translateServiceEntry(serviceEntry);
    const policy = this.policies.get(key);
    if (policy !== undefined) return this.#translatePolicy(policy);
    const peerAuthentication = this.peerAuthentications.get(key);
    return peerAuthentication === undefined
      ? []
      : this.#translatePeerAuthentication(peerAuthentication);
  }

  #translateServiceEntry(entry: ServiceEntry): Output[] {
    return translateServiceEntry(entry, this.#settings).flatMap(addressOutputs);
  }

  #translatePolicy(policy: AuthorizationPolicy): Output[] {
    const translated = translateAuthorizationPolicy(policy, this.#settings.rootNamespace);
    if (translated === undefined) return [];
    this.#statuses.push({ policy, translated });
    return translated.authorization === undefined
      ? []
      : [authorizationOutput(translated.authorization)];
  }

  #translatePeerAuthentication(policy: PeerAuthentication): Output[] {
    const { rootNamespace } = this.#settings;
    const namespace = policy.metadata.namespace ?? "";
    if (namespace === rootNamespace) return [];
    const inherited = inheritedStrict([...this.peerAuthentications.all], namespace, rootNamespace);
    const converted = portLevelPolicy(policy, inherited);
    return converted === undefined ? [] : [authorizationOutput(converted)];
  }

  #viewOf(workload: Pod | WorkloadEntry, labels: Labels): WorkloadView {
    const namespace = workload.metadata.namespace ?? "";
    const services: Service[] = [];
    for (const service of this.services.inNamespace(namespace)) {
      const selector = service.spec?.selector;
      if (
        selector !== undefined &&
        Object.keys(selector).length > 0 &&
        labelsMatch(selector, labels)
      )
        services.push(service);
    }
    const nodeName = workload.kind === "Pod" ? workload.spec.nodeName : undefined;
    const node =
      nodeName === undefined
        ? undefined
        : this.nodes.get(keyText({ kind: "Node", namespace: "", name: nodeName }));
    return {
      settings: this.#settings,
      services,
      node,
      policies: this.#policiesFor(namespace, labels),
    };
  }

  /** Keys of what selects a workload by labels, and of what PeerAuthentication makes of it. */
  #policiesFor(namespace: string, labels: Labels): string[] {
    const { rootNamespace } = this.#settings;
    const keys: string[] = [];
    for (const scope of new Set([namespace, rootNamespace])) {
      for (const policy of this.policies.inNamespace(scope)) {
        const { selector } = policy.spec;
        if (selector === undefined || !labelsMatch(selector.matchLabels ?? {}, labels)) continue;
        if (translateAuthorizationPolicy(policy, rootNamespace)?.authorization === undefined)
          continue;
        keys.push(`${scope}/${policy.metadata.name}`);
      }
    }
    if (this.peerAuthentications.size === 0) return keys;
    const all = [...this.peerAuthentications.all];
    const { strict, portPolicy } = effectivePeerAuthentication(
      all,
      { namespace, labels },
      rootNamespace,
    );
    if (portPolicy !== undefined) keys.push(`${namespace}/${portPolicyName(portPolicy)}`);
    else if (strict) keys.push(`${rootNamespace}/${STATIC_STRICT_NAME}`);
    return keys;
  }
}

const STATIC_KEY = "";

function entryLabels(entry: WorkloadEntry): Labels {
  return { ...labelsOf(entry), ...entry.spec.labels };
}

function addressOutputs(address: Address | undefined): Output[] {
  if (address === undefined) return [];
  const value = toBinary(AddressSchema, address);
  const node = address.type.case === "workload" ? address.type.value.node : "";
  const parents = address.type.case === "workload" ? Object.keys(address.type.value.services) : [];
  const resource: XdsResource = {
    name: addressName(address),
    version: contentVersion(value),
    aliases: addressAliases(address),
    value,
    parents,
    ...(node !== "" && { node }),
  };
  return [{ typeUrl: TYPE_ADDRESS, resource }];
}

function authorizationOutput(authorization: Authorization): Output {
  const value = toBinary(AuthorizationSchema, authorization);
  const name = `${authorization.namespace}/${authorization.name}`;
  return {
    typeUrl: TYPE_AUTHORIZATION,
    resource: { name, version: contentVersion(value), aliases: [], value },
  };
}
