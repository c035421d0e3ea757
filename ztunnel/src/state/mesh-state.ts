// The worker's whole knowledge of the mesh: workloads, services and policies, and the look-ups that a
// connection needs. Applies xDS updates: removals first, then upserts, whole resources only.

import { fromBinary } from "@bufbuild/protobuf";
import { AuthorizationSchema } from "@ambit/api/gen/istio/authorization_pb.ts";
import { AddressSchema } from "@ambit/api/gen/istio/workload_pb.ts";
import { type Policy, policyFromProto } from "@ambit/common/policy/policy.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { AddressIndex } from "./address-index.ts";
import { addressFromProto } from "./from-proto.ts";
import { ServiceStore, type StoredService } from "./service-store.ts";
import type { NetworkAddress, Workload, WorkloadUid } from "./workload.ts";

/** A resource as it came: its name and its serialized message. */
export interface ResourceUpsert {
  readonly name: string;
  readonly value: Uint8Array;
}

export interface ResourceUpdate {
  readonly upserts: readonly ResourceUpsert[];
  readonly removed: readonly string[];
}

export interface Rejection {
  readonly name: string;
  readonly reason: string;
}

export type FoundAddress =
  | { readonly kind: "workload"; readonly workload: Workload }
  | { readonly kind: "service"; readonly found: StoredService };

/** Told the resource name of what was looked for and not found, where state comes on demand. */
export type Missed = (key: string) => void;

/** By what an address is asked for on demand (ztunnel §6.1). */
export function addressKey({ network, ip }: NetworkAddress): string {
  return `${network}/${ip}`;
}

/** Which pod a listener belongs to, as the node agent told us. */
export interface PodInfo {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

export class MeshState {
  readonly services = new ServiceStore();
  readonly #workloads = new Map<WorkloadUid, Workload>();
  readonly #byAddress = new AddressIndex<Workload>();
  /** Workloads of each node: the candidates for its pods. */
  readonly #byNode = new Map<string, Set<Workload>>();
  /** Policies by key; and those of global and namespace scope by namespace ("" is global). */
  readonly #policies = new Map<string, Policy>();
  readonly #scoped = new Map<string, readonly Policy[]>();
  /** What policiesFor answered since the policies last changed. */
  #policiesOf = new WeakMap<Workload, readonly Policy[]>();
  readonly #onChange = new Set<() => void>();
  /** Grows with every applied update: a look-up remembered under another version is stale. */
  version = 0;

  /** Applies address resources; those that are malformed are named, the others are applied. */
  applyAddresses(update: ResourceUpdate): Rejection[] {
    for (const name of update.removed) this.#removeAddress(name);
    const rejections = applyEach(update.upserts, ({ value }) => {
      const address = addressFromProto(fromBinary(AddressSchema, value));
      if (address.kind === "service") this.services.upsert(address.service);
      else this.#upsertWorkload(address.workload);
    });
    this.#changed();
    return rejections;
  }

  applyAuthorizations(update: ResourceUpdate): Rejection[] {
    for (const name of update.removed) this.#removePolicy(name);
    const rejections = applyEach(update.upserts, ({ name, value }) => {
      const policy = policyFromProto(fromBinary(AuthorizationSchema, value));
      if (typeof policy === "string") throw new Error(policy);
      this.#removePolicy(name);
      this.#policies.set(name, policy);
      const scope = scopeKey(policy);
      if (scope !== undefined)
        this.#scoped.set(scope, [...(this.#scoped.get(scope) ?? []), policy]);
    });
    this.#policiesOf = new WeakMap();
    this.#changed();
    return rejections;
  }

  /** Calls back after every applied update, until the returned function is called. */
  onChange(callback: () => void): () => void {
    this.#onChange.add(callback);
    return () => this.#onChange.delete(callback);
  }

  get workloads(): Iterable<Workload> {
    return this.#workloads.values();
  }

  get policies(): Iterable<Policy> {
    return this.#policies.values();
  }

  workload(uid: WorkloadUid): Workload | undefined {
    return this.#workloads.get(uid);
  }

  /**
   * Of several workloads with one address: a Pod first, then one that speaks HBONE (ztunnel §3.5), then
   * the newest, as addresses are given to new pods.
   */
  workloadByAddress(address: NetworkAddress): Workload | undefined {
    const found = this.#byAddress.get(address);
    if (found.length <= 1) return found[0];
    return found.reduce((best, other) => (addressRank(other) >= addressRank(best) ? other : best));
  }

  /** Workload first, then service (ztunnel §3.1 step 1). */
  findAddress(
    address: NetworkAddress,
    clientNamespace: string | undefined,
  ): FoundAddress | undefined {
    const workload = this.workloadByAddress(address);
    if (workload !== undefined) return { kind: "workload", workload };
    const found = this.services.byAddress(address, clientNamespace);
    return found && { kind: "service", found };
  }

  /** A workload named by hostname and namespace: a linear scan, for waypoints and gateways only. */
  workloadByHostname(namespace: string, hostname: string): Workload | undefined {
    for (const workload of this.#workloads.values()) {
      if (workload.hostname === hostname && workload.namespace === namespace) return workload;
    }
    return undefined;
  }

  /** The xDS workload of a local pod; `nodeName` undefined makes all nodes candidates. */
  workloadOfPod(pod: PodInfo, nodeName: string | undefined): Workload | undefined {
    const candidates =
      nodeName === undefined ? this.#workloads.values() : (this.#byNode.get(nodeName) ?? []);
    for (const workload of candidates) {
      if (workload.name !== pod.name || workload.namespace !== pod.namespace) continue;
      if (workload.serviceAccount === pod.serviceAccount) return workload;
    }
    return undefined;
  }

  /** All policies that apply to a workload: its namespace's, global ones, and those it names. */
  policiesFor(workload: Workload): readonly Policy[] {
    const known = this.#policiesOf.get(workload);
    if (known !== undefined) return known;
    const policies = [
      ...(this.#scoped.get(workload.namespace) ?? []),
      ...(this.#scoped.get(GLOBAL) ?? []),
    ];
    for (const key of workload.authorizationPolicies) {
      const policy = this.#policies.get(key);
      if (policy !== undefined && !policies.includes(policy)) policies.push(policy);
    }
    this.#policiesOf.set(workload, policies);
    return policies;
  }

  /** Keys of policies that a workload names and that we do not know: not yet, or not any more. */
  missingPolicies({ authorizationPolicies }: Workload): readonly string[] {
    return authorizationPolicies.filter((key) => !this.#policies.has(key));
  }

  #upsertWorkload(workload: Workload): void {
    const before = this.#workloads.get(workload.uid);
    if (before !== undefined) this.#forget(before);
    this.#workloads.set(workload.uid, workload);
    this.#byNode.getOrInsertComputed(workload.node, newWorkloads).add(workload);
    for (const address of indexedAddresses(workload)) this.#byAddress.add(address, workload);
    this.services.addEndpoints(workload);
  }

  /** A removed name is a workload uid, or else a service key (ztunnel §6.1). */
  #removeAddress(name: string): void {
    const workload = this.#workloads.get(name as WorkloadUid);
    if (workload === undefined) this.services.remove(name);
    else this.#forget(workload);
  }

  #forget(workload: Workload): void {
    this.#workloads.delete(workload.uid);
    this.services.removeEndpoints(workload);
    for (const address of indexedAddresses(workload)) this.#byAddress.remove(address, workload);
    const ofNode = this.#byNode.get(workload.node);
    ofNode?.delete(workload);
    if (ofNode?.size === 0) this.#byNode.delete(workload.node);
  }

  #removePolicy(key: string): void {
    const policy = this.#policies.get(key);
    if (policy === undefined) return;
    this.#policies.delete(key);
    const scope = scopeKey(policy);
    if (scope === undefined) return;
    const rest = (this.#scoped.get(scope) ?? []).filter((other) => other !== policy);
    if (rest.length === 0) this.#scoped.delete(scope);
    else this.#scoped.set(scope, rest);
  }

  #changed(): void {
    this.version++;
    for (const callback of this.#onChange) callback();
  }
}

function applyEach(
  upserts: readonly ResourceUpsert[],
  apply: (upsert: ResourceUpsert) => void,
): Rejection[] {
  const rejections: Rejection[] = [];
  for (const upsert of upserts) {
    try {
      apply(upsert);
    } catch (error) {
      rejections.push({ name: upsert.name, reason: errorMessage(error) });
    }
  }
  return rejections;
}

function newWorkloads(): Set<Workload> {
  return new Set();
}

/** A host-network pod shares its node's address, so the address does not name it (ztunnel §3.5). */
function indexedAddresses({ hostNetwork, network, addresses }: Workload): NetworkAddress[] {
  return hostNetwork ? [] : addresses.map((ip) => ({ network, ip }));
}

function addressRank({ uid, protocol }: Workload): number {
  return (uid.includes("//Pod/") ? 2 : 0) + (protocol === "HBONE" ? 1 : 0);
}

/** Under this namespace the global policies are kept. */
const GLOBAL = "";

/** The namespace a policy applies to; undefined when only workloads that name it have it. */
function scopeKey(policy: Policy): string | undefined {
  if (policy.scope === "workload") return undefined;
  return policy.scope === "global" ? GLOBAL : policy.namespace;
}
