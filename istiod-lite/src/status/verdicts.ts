// What becomes of services and workloads, as the conditions that their authors read.

import type { Service, ServiceEntry, WorkloadEntry } from "@ambit/api/resources/kinds.ts";
import type { Visibility } from "../mesh-config/mesh-config.ts";
import type { Attachment, ServiceAttachment } from "../model/waypoints.ts";
import { isWildcardHost, meshHosts } from "../translate/service-entry.ts";
import type { Condition, ObjectStatus } from "./object-status.ts";

export function serviceStatus(
  { metadata }: Service,
  attachment: ServiceAttachment,
  ingress: boolean,
): ObjectStatus {
  const { namespace = "", name, generation } = metadata;
  return {
    key: { kind: "Service", namespace, name },
    generation,
    conditions: waypointBound(attachment, ingress),
  };
}

export function workloadEntryStatus(
  { metadata }: WorkloadEntry,
  attachment: Attachment,
): ObjectStatus {
  const { namespace = "", name, generation } = metadata;
  return {
    key: { kind: "WorkloadEntry", namespace, name },
    generation,
    conditions: waypointBound(attachment, false),
  };
}

/** What was decided on an entry. */
export interface EntryFindings {
  readonly attachment: ServiceAttachment;
  readonly ingress: boolean;
  /** Only when the mesh configures it. */
  readonly visibility?: Visibility;
  /** Hosts of it that others of its namespace have, by the keys of those. */
  readonly lostHosts: readonly { readonly host: string; readonly owner: string }[];
}

/** `entry` carries the addresses that its hosts were given. */
export function serviceEntryStatus(
  entry: ServiceEntry,
  { attachment, ingress, visibility, lostHosts }: EntryFindings,
): ObjectStatus {
  const { namespace = "", name, generation } = entry.metadata;
  return {
    key: { kind: "ServiceEntry", namespace, name },
    generation,
    conditions: [
      ...waypointBound(attachment, ingress),
      ...waypointMissing(entry, attachment),
      ...(visibility === undefined ? [] : [VISIBILITY[visibility]]),
      ...hostConflict(lostHosts),
    ],
    addresses: (entry.status?.addresses ?? []).map(({ value, host = "" }) => ({ value, host })),
  };
}

/** Nothing is said where none is asked for. */
function waypointBound(attachment: ServiceAttachment, ingress: boolean): Condition[] {
  const { waypoint, refusal, canaryRefusal } = attachment;
  const type = "istio.io/WaypointBound";
  if (refusal !== undefined) return [{ type, status: "False", ...refusal }];
  if (waypoint === undefined) return [];
  const parts = [
    `bound to ${waypoint.name}`,
    ...(ingress ? ["ingress gateways go through it too"] : []),
    ...(canaryRefusal ? [`without its canary: ${canaryRefusal.message}`] : []),
  ];
  return [{ type, status: "True", reason: "WaypointAccepted", message: parts.join("; ") }];
}

/** A Service has its host before every entry, an older entry before a younger one. */
function hostConflict(lost: EntryFindings["lostHosts"]): Condition[] {
  if (lost.length === 0) return [];
  const hosts = lost.map(({ host, owner }) => {
    const [kind, , name] = owner.split("/");
    return `${host} is ${kind} ${name}'s`;
  });
  const message = `${hosts.join(", ")}: what this entry says of it has no effect`;
  return [{ type: "ambit.io/HostConflict", status: "True", reason: "HostTaken", message }];
}

const CONNECT_STRATEGY = "istio.io/connect-strategy";

/** What only a waypoint could do for the entry. */
function waypointMissing(entry: ServiceEntry, { waypoint }: ServiceAttachment): Condition[] {
  if (waypoint !== undefined) return [];
  const type = "istio.io/WaypointMissing";
  if (entry.metadata.annotations?.[CONNECT_STRATEGY] === "RACE_FIRST_TCP_CONNECT") {
    const message = "connections are not raced: only a waypoint does that";
    return [{ type, status: "True", reason: "NoWaypointForRacingConnectStrategy", message }];
  }
  if (!meshHosts(entry).some(isWildcardHost)) return [];
  const message =
    "connections to a wildcard host are refused: only a waypoint can tell which name is meant";
  return [{ type, status: "True", reason: "NoWaypointForWildcardService", message }];
}

const APPLIED = { type: "istio.io/VisibilityApplied", status: "True" } as const;

const VISIBILITY: Readonly<Record<Visibility, Condition>> = {
  NONE: {
    ...APPLIED,
    reason: "None",
    message: "the mesh's serviceEntryVisibility leaves it out: it has no effect",
  },
  NAMESPACE: {
    ...APPLIED,
    reason: "Namespace",
    message: "clients of its own namespace see it, by the mesh's serviceEntryVisibility",
  },
  PUBLIC: { ...APPLIED, reason: "Public", message: "clients of every namespace see it" },
};
