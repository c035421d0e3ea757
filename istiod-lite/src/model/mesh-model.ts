// The mesh as the control plane knows it, kept up to date incrementally: an event marks what depends on it,
// and only that is translated again at the next flush. Emits resources whose content changed.

import { isDeepStrictEqual } from "node:util";
import { keyOf, keyText, type ResourceEvent } from "@ambit/common/resources/source.ts";
import type { XdsChange } from "@ambit/common/xds/resource-type.ts";
import type { ObjectStatus } from "../status/object-status.ts";
import type { MeshSettings } from "../translate/settings.ts";
import { affectedBy, STATIC_KEY } from "./affected.ts";
import { MeshObjects } from "./mesh-objects.ts";
import { ChangeSet, type Output } from "./output.ts";
import { Translator } from "./translator.ts";

const NETWORK_LABEL = "topology.istio.io/network";

export class MeshModel {
  #configured: MeshSettings;
  #settings: MeshSettings;
  /** Where the mesh itself runs; its label names the network. */
  readonly #systemNamespace: string;
  readonly #objects: MeshObjects;
  readonly #translator: Translator;
  /** Keys of objects to translate again. */
  readonly #dirty = new Set<string>();
  /** What each object was translated to. */
  readonly #outputs = new Map<string, readonly Output[]>();
  #statuses: ObjectStatus[] = [];
  /** Translations done so far; tests hold incrementality against it. */
  translations = 0;

  constructor(settings: MeshSettings) {
    this.#configured = settings;
    this.#settings = settings;
    this.#systemNamespace = settings.rootNamespace;
    this.#objects = new MeshObjects(settings.clusterDomain);
    this.#objects.serviceEntryVisibility = settings.serviceEntryVisibility;
    this.#translator = new Translator(this.#objects, (status) => this.#statuses.push(status));
  }

  get serviceCount(): number {
    return this.#objects.services.size;
  }

  apply(event: ResourceEvent): void {
    const key = event.type === "upsert" ? keyOf(event.resource) : event.key;
    const after = event.type === "upsert" ? event.resource : undefined;
    const before = this.#objects.set(key, after);
    for (const version of [before, after]) {
      if (version === undefined) continue;
      this.#markAll(affectedBy(version, this.#objects, this.#settings));
    }
    this.#contest(this.#objects.claimHosts(keyText(key), after));
    if (key.kind !== "Namespace") return;
    if (this.#settings.serviceEntryVisibility !== undefined)
      this.#contest(this.#objects.reclaim(key.name));
    if (key.name === this.#systemNamespace) this.#setNetwork();
  }

  /** Settings that hold from now on; everything is translated again when they differ. */
  configure(changes: Partial<MeshSettings>): void {
    const before = this.#configured;
    this.#configured = { ...before, ...changes };
    if (isDeepStrictEqual(before, this.#configured)) return;
    this.#settings = { ...this.#configured, network: this.#settings.network };
    this.#objects.serviceEntryVisibility = this.#settings.serviceEntryVisibility;
    this.#contest(this.#objects.reclaim());
    this.#dirty.add(STATIC_KEY);
    for (const key of this.#objects.keys()) this.#dirty.add(key);
  }

  /** Who has which host may have changed for these, and with it what the workloads they select serve. */
  #contest(keys: Iterable<string>): void {
    for (const key of keys) {
      this.#markAll([key]);
      const entry = this.#objects.serviceEntries.get(key);
      if (entry === undefined) continue;
      this.#markAll(affectedBy(entry, this.#objects, this.#settings));
    }
  }

  /** What is said of policies depends on their targets. */
  #markAll(keys: Iterable<string>): void {
    for (const key of keys) {
      const isNew = !this.#dirty.has(key);
      this.#dirty.add(key);
      for (const policy of this.#objects.policiesFor(key)) this.#dirty.add(policy);
      if (isNew && this.#settings.autoAllowWaypoints) this.#markBehind(key);
    }
  }

  /** Workloads name the policies of the waypoints before them, so they follow those and their services. */
  #markBehind(key: string): void {
    const { services, serviceEntries, gateways } = this.#objects;
    const front = services.get(key) ?? serviceEntries.get(key) ?? gateways.get(key);
    if (front !== undefined) this.#markAll(affectedBy(front, this.#objects, this.#settings));
  }

  /** Translates what is marked; one change per type that has any. */
  flush(): XdsChange[] {
    const changes = new ChangeSet();
    for (const key of this.#dirty) {
      const after = this.#translator.translate(key, this.#settings);
      this.translations++;
      changes.add(this.#outputs.get(key) ?? [], after);
      if (after.length === 0) this.#outputs.delete(key);
      else this.#outputs.set(key, after);
    }
    this.#dirty.clear();
    return changes.changes;
  }

  /** What to tell the authors of objects translated since the last call. */
  takeStatuses(): ObjectStatus[] {
    const statuses = this.#statuses;
    this.#statuses = [];
    return statuses;
  }

  /** The system namespace's label says where the mesh is; everything is elsewhere when it changes. */
  #setNetwork(): void {
    const system = this.#objects.namespaceObject(this.#systemNamespace);
    const network = system?.metadata.labels?.[NETWORK_LABEL] ?? this.#configured.network;
    if (network === this.#settings.network) return;
    this.#settings = { ...this.#configured, network };
    for (const key of this.#outputs.keys()) this.#dirty.add(key);
  }
}
