// Authorizing: the verdict of the destination's policies on a new connection. review.ts asks again while
// the connection lives.

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
