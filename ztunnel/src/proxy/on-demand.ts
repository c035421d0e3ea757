// Deciding with a state that is filled on demand: what the decision looked for and did not find is asked
// for, and it is made again, until nothing is missing that the control plane has not been asked about.

import type { Missed } from "../state/mesh-state.ts";
import type { DemandView } from "../worker/demand-view.ts";
import { ProxyError } from "./proxy-error.ts";

/** An address leads to a service, its waypoint, that one's gateway: each may be new to us. */
export const ROUNDS_MAX = 6;

/** Rejects with XDS_UNANSWERED, or with what `decide` throws. */
export async function decideOnDemand<T>(
  demand: DemandView,
  decide: (missed: Missed) => T,
): Promise<T> {
  const asked = new Set<string>();
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const missing = new Set<string>();
    const decision = decide((key) => {
      if (!asked.has(key)) missing.add(key);
    });
    if (missing.size === 0) return decision;
    await Promise.all([...missing].map((key) => demand.wait(key)));
    for (const key of missing) asked.add(key);
  }
  throw new ProxyError("XDS_UNANSWERED", "one unknown resource leads to another without end");
}
