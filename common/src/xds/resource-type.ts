// The resource types of the mesh's delta xDS, and a resource as the server keeps it.

import { createHash } from "node:crypto";

export const TYPE_ADDRESS = "type.googleapis.com/istio.workload.Address";
export const TYPE_AUTHORIZATION = "type.googleapis.com/istio.security.Authorization";

/** What ztunnel subscribes to, in the order in which it asks. */
export const ZTUNNEL_TYPES: readonly string[] = [TYPE_ADDRESS, TYPE_AUTHORIZATION];

/**
 * What must be acknowledged before a type's changes are sent: a workload that names a new policy must
 * not be known where the policy is not, for proxies skip policies they do not know.
 */
export const SENT_AFTER: ReadonlyMap<string, string> = new Map([
  [TYPE_ADDRESS, TYPE_AUTHORIZATION],
]);

/** Types that every client gets all of, whatever it asks for: who enforces policies must have them all. */
export const ALWAYS_ALL: ReadonlySet<string> = new Set([TYPE_AUTHORIZATION]);

/** One resource, serialized once and shared by every client it is sent to. */
export interface XdsResource {
  /** Workload uid, service "namespace/hostname", or authorization "namespace/name". */
  readonly name: string;
  /** Equal exactly when `value` is equal; see contentVersion(). */
  readonly version: string;
  /** Other keys an on-demand client may ask for it by: "network/ip", "namespace/hostname". */
  readonly aliases: readonly string[];
  /** The serialized message, without the Any around it. */
  readonly value: Uint8Array;
  /** Names of resources whose subscribers get this one too: a workload's services. */
  readonly parents?: readonly string[];
  /** The node whose ztunnel gets it even when it subscribes on demand only. */
  readonly node?: string;
}

/** Everything that changed in one type between two pushes. */
export interface XdsChange {
  readonly typeUrl: string;
  readonly upserts: readonly XdsResource[];
  readonly removed: readonly string[];
}

/** Takes the model's changes; the resource store is one. */
export interface MeshSnapshotSink {
  apply(change: XdsChange): void;
}

/** A stable version of the content: 16 hex digits of its SHA-1. Not a security property. */
export function contentVersion(value: Uint8Array): string {
  return createHash("sha1").update(value).digest("hex").slice(0, 16);
}
