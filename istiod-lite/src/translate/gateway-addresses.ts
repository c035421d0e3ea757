// Where a Gateway can be reached: what its status says or, when nobody has written one, what its author
// wrote, who then runs it too.

import type { Gateway } from "@ambit/api/resources/kinds.ts";

type Addresses = NonNullable<Gateway["spec"]["addresses"]>;

/** None: it is not ready. */
export function gatewayAddresses({ spec, status }: Gateway): Addresses {
  const written = status?.addresses ?? [];
  return written.length > 0 ? written : (spec.addresses ?? []);
}
