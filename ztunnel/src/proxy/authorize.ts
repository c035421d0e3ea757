// Authorizing: the verdict of the destination's policies on a connection, and again on the living ones
// whenever policies or workloads change.

import { evaluate, refusalText } from "@ambit/common/policy/evaluate.ts";
import type { ConnectionSubject } from "@ambit/common/policy/match.ts";
import type { Workload } from "../state/workload.ts";
import type { ProxyContext } from "./context.ts";
import { ProxyError } from "./proxy-error.ts";

/** Throws POLICY_DENIED unless the policies of `workload` allow the connection. */
export function authorize(
  { state, config, log }: ProxyContext,
  workload: Workload,
  subject: ConnectionSubject,
): void {
  const decision = evaluate(state.policiesFor(workload), subject);
  for (const policy of decision.dryRunMatches) {
    log.info("dry-run policy matched", { policy, workload: workload.uid });
  }
  if (config.policyInfoLogging) {
    log.info("policy decision", {
      allowed: decision.allowed,
      reason: decision.reason,
      policy: decision.policy,
    });
  }
  if (!decision.allowed) throw new ProxyError("POLICY_DENIED", refusalText(decision));
}

/** Ends the tracked inbound connections that policies now forbid; others are not touched. */
export function reauthorize({ state, connections }: ProxyContext): void {
  for (const { connection, workload, subject } of connections) {
    if (subject === undefined) continue;
    const current = state.workload(workload.uid) ?? workload;
    if (evaluate(state.policiesFor(current), subject).allowed) continue;
    connection.abort(new ProxyError("POLICY_CHANGED", "connection closed due to policy change"));
  }
}
