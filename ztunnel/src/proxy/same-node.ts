// How two pods of one node reach each other. Each workload may say so (`ambit.io/same-node`, by xDS), for
// the others this process's setting holds; of the two the stricter word counts, for what asks for
// encryption between any two pods asks it of both. An application tunnel is served from a tunnel only: the
// inbound side calls its application by rules of its own, at another port or with a PROXY header.

import type { SameNodePath } from "../config.ts";
import type { Workload } from "../state/workload.ts";

/**
 * "local" is inside this process; "hbone" a tunnel as to any other node; "direct" is local, and past this
 * process where it can be (direct/decide.ts).
 */
export function sameNodePath(
  usual: SameNodePath,
  source: Workload,
  destination: Workload,
): SameNodePath {
  if (destination.applicationTunnel !== undefined) return "hbone";
  const words = new Set([source.sameNode ?? usual, destination.sameNode ?? usual]);
  if (words.has("hbone")) return "hbone";
  return words.has("local") ? "local" : "direct";
}
