// Authorizing: the verdict of the destination's policies on a new connection. review.ts asks again while
// the connection lives.

import { evaluate, refusalText } from "@ambit/common/policy/evaluate.ts";
import type { ConnectionSubject } from "@ambit/common/policy/match.ts";
import type { Workload } from "../state/workload.ts";
import type { ProxyContext } from "./context.ts";
import { ProxyError } from "./proxy-error.ts";

/** Throws POLICY_DENIED unless the policies of `workload` allow the connection. */
export function authorize(
  { state, policyTelemetry }: ProxyContext,
  workload: Workload,
  subject: ConnectionSubject,
): void {
  if (workload.authorizationPolicies.length > 0) {
    policyTelemetry.missing(workload, state.missingPolicies(workload));
  }
  const decision = evaluate(state.policiesFor(workload), subject);
  policyTelemetry.decided(workload, decision);
  if (!decision.allowed) throw new ProxyError("POLICY_DENIED", refusalText(decision));
}
