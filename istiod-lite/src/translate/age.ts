// Of several objects that exclude each other the oldest counts (Istio's rule everywhere).

import type { Resource } from "@ambit/api/resources/kinds.ts";
import { keyOf, keyText } from "@ambit/common/resources/source.ts";

/** Equal ages are told apart by name, so that the choice does not depend on the order of events. */
export function isOlder(a: Resource, b: Resource): boolean {
  const [ageA, ageB] = [a.metadata.creationTimestamp ?? "", b.metadata.creationTimestamp ?? ""];
  return ageA === ageB ? keyText(keyOf(a)) < keyText(keyOf(b)) : ageA < ageB;
}
