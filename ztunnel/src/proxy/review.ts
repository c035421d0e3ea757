// Reviewing: what the mesh forbids now ends now, whatever it allowed when it began; nothing else is
// touched. Asked after every change of the mesh, so it looks only at what may have changed.

import type { PoolKey } from "@ambit/common/hbone/pool.ts";
import { evaluate, refusalText } from "@ambit/common/policy/evaluate.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import type { MeshState } from "../state/mesh-state.ts";
import { type Workload, workloadIdentity, type WorkloadUid } from "../state/workload.ts";
import type { TrackedConnection } from "./connection.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { ProxyError } from "./proxy-error.ts";

/** Ends the tracked connections that the mesh, as it is now, forbids. */
export function reviewConnections({ state, connections }: ProxyContext): void {
  for (const tracked of connections) {
    const objection =
      tracked.subject === undefined ? hopObjection(state, tracked) : objectionTo(state, tracked);
    if (objection !== undefined) tracked.connection.abort(objection);
  }
}

/** Inbound: its workload is still there, and its policies still allow it. */
function objectionTo(state: MeshState, tracked: TrackedConnection): ProxyError | undefined {
  const { subject, workload } = tracked;
  const current = state.workload(workload.uid);
  if (current === undefined) return removed(workload);
  const policies = state.policiesFor(current);
  if (subject === undefined || policies === tracked.reviewed) return undefined;
  tracked.reviewed = policies;
  const decision = evaluate(policies, subject);
  if (decision.allowed) return undefined;
  const why = `connection closed due to policy change: ${refusalText(decision)}`;
  return new ProxyError("POLICY_CHANGED", why);
}

/** Outbound: its tunnel still ends at the workload it was opened for. */
function hopObjection(state: MeshState, { hop }: TrackedConnection): ProxyError | undefined {
  if (hop === undefined) return undefined;
  const { workload, ip, allowedIdentities } = hop;
  const holds = isStillAt(state, workload.uid, ip, allowedIdentities);
  return holds ? undefined : removed(workload);
}

/**
 * Cuts pooled tunnels whose workload is gone, has lost the address, or became somebody else: a pod's
 * address and name may be given to another.
 */
export function dropStaleTunnels({ state }: ProxyContext, pods: Iterable<Pod>): void {
  const isStale = ({ workloadUid, nextHop, allowedIdentities }: PoolKey) =>
    workloadUid !== undefined &&
    !isStillAt(state, workloadUid as WorkloadUid, nextHop.ip, allowedIdentities);
  for (const { pool } of pods) pool.closeWhere(isStale);
}

function isStillAt(
  state: MeshState,
  uid: WorkloadUid,
  ip: string,
  allowedIdentities: readonly string[],
): boolean {
  const current = state.workload(uid);
  if (current === undefined || !hasAddress(current, ip)) return false;
  return allowedIdentities.includes(spiffeId(workloadIdentity(current)));
}

/** Where a workload with only a hostname is, DNS said when it was dialed. */
function hasAddress({ addresses, hostname }: Workload, ip: string): boolean {
  if (addresses.length === 0 && hostname !== "") return true;
  return addresses.some((address) => address === ip);
}

function removed({ namespace, name }: Workload): ProxyError {
  const why = `connection closed: workload ${namespace}/${name} was removed from the mesh`;
  return new ProxyError("WORKLOAD_REMOVED", why);
}
