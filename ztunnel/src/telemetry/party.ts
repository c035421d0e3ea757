// One side of a connection as telemetry names it, from what xDS knows of the workload or, for a peer
// that is not in our xDS, from the baggage it sent (ztunnel.md: xDS wins, baggage fills in).

import { type Baggage, encodeBaggage } from "@ambit/common/hbone/baggage.ts";
import type { Workload } from "../state/workload.ts";

export interface Party {
  /** The pod. */
  readonly name?: string;
  readonly namespace?: string;
  /** The Deployment, Job, … that owns it. */
  readonly workload?: string;
  readonly canonicalName?: string;
  readonly canonicalRevision?: string;
  readonly cluster?: string;
  readonly region?: string;
  readonly zone?: string;
}

/** Parties and baggage by workload: one that changes is a new object. */
const parties = new WeakMap<Workload, Party>();
const baggages = new WeakMap<Workload, string>();
const lasting = new WeakSet<Party>();

export function partyOfWorkload(workload: Workload): Party {
  return parties.getOrInsertComputed(workload, newParty);
}

/** It is one object for all connections of a workload, not one of this connection alone. */
export function isLasting(party: Party): boolean {
  return lasting.has(party);
}

function newParty(workload: Workload): Party {
  const party = describe(workload);
  lasting.add(party);
  return party;
}

function describe(workload: Workload): Party {
  return compact({
    name: workload.name,
    namespace: workload.namespace,
    workload: workload.workloadName,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    cluster: workload.clusterId,
    region: workload.locality.region,
    zone: workload.locality.zone,
  });
}

export function partyOfBaggage(baggage: Baggage): Party {
  return compact({
    name: undefined,
    namespace: baggage.namespace,
    workload: baggage.workloadName,
    canonicalName: baggage.serviceName,
    canonicalRevision: baggage.revision,
    cluster: baggage.clusterId,
    region: baggage.region,
    zone: baggage.zone,
  });
}

/** The `baggage` header in which we tell a peer of a workload of ours (ztunnel §1.3). */
export function baggageOf(workload: Workload): string {
  return baggages.getOrInsertComputed(workload, newBaggage);
}

function newBaggage(workload: Workload): string {
  return encodeBaggage({
    clusterId: workload.clusterId,
    namespace: workload.namespace,
    workloadKind: workload.workloadKind,
    workloadName: workload.workloadName,
    serviceName: workload.canonicalName,
    revision: workload.canonicalRevision,
    region: workload.locality.region,
    zone: workload.locality.zone,
  });
}

/** A party of which nothing is known. */
export const UNKNOWN_PARTY: Party = {};

function compact(fields: Record<keyof Party, string | undefined>): Party {
  const party: Partial<Record<keyof Party, string>> = {};
  for (const [key, value] of Object.entries(fields)) {
    if (value !== undefined && value !== "") party[key as keyof Party] = value;
  }
  return party;
}
