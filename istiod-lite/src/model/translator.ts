// From the key of an object to what ztunnels are sent for it: gathers what its translation depends on, and
// calls the translation of its kind.

import type {
  AuthorizationPolicy,
  EndpointSlice,
  PeerAuthentication,
  Pod,
  Service,
  ServiceEntry,
  WorkloadEntry,
} from "@ambit/api/resources/kinds.ts";
import { keyOf, keyText } from "@ambit/common/resources/source.ts";
import type { ObjectStatus } from "../status/object-status.ts";
import { policyStatus, serviceEntryStatus } from "../status/verdicts.ts";
import {
  isSentToZtunnel,
  translateAuthorizationPolicy,
} from "../translate/authorization-policy.ts";
import { translateEndpointSlice } from "../translate/endpoint-slice.ts";
import { type Labels, labelsMatch, labelsOf } from "../translate/labels.ts";
import {
  effectivePeerAuthentication,
  inheritedStrict,
  portLevelPolicy,
  portPolicyName,
  STATIC_STRICT_NAME,
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
import { serviceResourceName, translateService } from "../translate/service.ts";
import {
  meshHosts,
  serviceEntryServices,
  serviceEntryWorkloads,
} from "../translate/service-entry.ts";
import type { MeshSettings } from "../translate/settings.ts";
import {
  translatePod,
  translateWorkloadEntry,
  workloadEntryLabels,
  type WorkloadView,
} from "../translate/workload.ts";
import { STATIC_KEY } from "./affected.ts";
import type { MeshObjects } from "./mesh-objects.ts";
import { addressOutput, authorizationOutput, type Output } from "./output.ts";

export class Translator {
  readonly #objects: MeshObjects;
  readonly #onStatus: (status: ObjectStatus) => void;

  /** `onStatus` hears what becomes of each object whose author is told, when it is translated. */
  constructor(objects: MeshObjects, onStatus: (status: ObjectStatus) => void) {
    this.#objects = objects;
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
      default:
        return [];
    }
  }

  #pod(pod: Pod, settings: MeshSettings): Output[] {
    const objects = this.#objects;
    const name = pod.spec.nodeName ?? "";
    const labels = labelsOf(pod);
    const view: WorkloadView = {
      settings,
      services: this.#servicesOfPod(pod, labels, settings),
      node: objects.nodes.get(keyText({ kind: "Node", namespace: "", name })),
      policies: this.#policiesFor(pod.metadata.namespace ?? "", labels, settings),
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
      const ports = podPortsOfServiceEntry(entry);
      for (const host of meshHosts(entry)) served.push({ name: `${namespace}/${host}`, ports });
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
      for (const host of meshHosts(selecting))
        services.push({ name: `${namespace}/${host}`, ports });
    }
    const policies = this.#policiesFor(namespace, labels, settings);
    const address = translateWorkloadEntry(entry, {
      settings,
      services,
      node: undefined,
      policies,
    });
    return address === undefined ? [] : [addressOutput(address)];
  }

  #service(service: Service, settings: MeshSettings): Output[] {
    const namespace = this.#namespaceOf(service);
    const address = translateService(service, namespace, settings);
    return address === undefined ? [] : [addressOutput(address)];
  }

  #serviceEntry(entry: ServiceEntry, settings: MeshSettings): Output[] {
    const { hostnames } = this.#objects;
    this.#onStatus(serviceEntryStatus(entry));
    const key = keyText(keyOf(entry));
    const claims = meshHosts(entry)
      .filter((host) => hostnames.owns(key, host))
      .map((host) => ({ host, canonical: hostnames.isCanonical(key, host) }));
    const labels = labelsOf(entry);
    const policies = this.#policiesFor(entry.metadata.namespace ?? "", labels, settings);
    return [
      ...serviceEntryServices(entry, claims, this.#namespaceOf(entry), settings),
      ...serviceEntryWorkloads(entry, policies, settings),
    ].map(addressOutput);
  }

  #endpointSlice(slice: EndpointSlice, settings: MeshSettings): Output[] {
    const service = this.#objects.serviceOf(slice);
    if (service === undefined) return [];
    return translateEndpointSlice(slice, service, settings).map(addressOutput);
  }

  #namespaceOf({ metadata }: Service | ServiceEntry) {
    const name = metadata.namespace ?? "";
    return this.#objects.namespaces.get(keyText({ kind: "Namespace", namespace: "", name }));
  }

  #policy(policy: AuthorizationPolicy, settings: MeshSettings): Output[] {
    const translated = translateAuthorizationPolicy(policy, settings);
    this.#onStatus(policyStatus(policy, translated));
    const authorization = translated?.authorization;
    return authorization === undefined ? [] : [authorizationOutput(authorization)];
  }

  #staticPolicy({ rootNamespace }: MeshSettings): Output[] {
    const needed = this.#objects.peerAuthentications.size > 0;
    return needed ? [authorizationOutput(staticStrictPolicy(rootNamespace))] : [];
  }

  #peerAuthentication(policy: PeerAuthentication, { rootNamespace }: MeshSettings): Output[] {
    const { namespace = "" } = policy.metadata;
    if (namespace === rootNamespace) return [];
    const inherited = inheritedStrict(this.#peerAuthenticationsOf, namespace, rootNamespace);
    const converted = portLevelPolicy(policy, inherited);
    return converted === undefined ? [] : [authorizationOutput(converted)];
  }

  readonly #peerAuthenticationsOf = (namespace: string) =>
    this.#objects.peerAuthentications.inNamespace(namespace);

  /** Keys of what selects a workload by labels, and of what PeerAuthentication makes of it. */
  #policiesFor(namespace: string, labels: Labels, settings: MeshSettings): string[] {
    const { rootNamespace } = settings;
    const { policies, peerAuthentications } = this.#objects;
    const keys: string[] = [];
    const scopes = namespace === rootNamespace ? [namespace] : [namespace, rootNamespace];
    for (const scope of scopes) {
      for (const policy of policies.inNamespace(scope)) {
        const { selector } = policy.spec;
        if (selector === undefined || !labelsMatch(selector.matchLabels ?? {}, labels)) continue;
        if (isSentToZtunnel(policy, settings)) keys.push(`${scope}/${policy.metadata.name}`);
      }
    }
    if (peerAuthentications.size === 0) return keys;
    const workload = { namespace, labels };
    const { strict, portPolicy } = effectivePeerAuthentication(
      this.#peerAuthenticationsOf,
      workload,
      rootNamespace,
    );
    if (portPolicy !== undefined) keys.push(`${namespace}/${portPolicyName(portPolicy)}`);
    else if (strict) keys.push(`${rootNamespace}/${STATIC_STRICT_NAME}`);
    return keys;
  }
}

function apply<T>(object: T | undefined, translate: (object: T) => Output[]): Output[] {
  return object === undefined ? [] : translate(object);
}
