// What becomes of an object, as the conditions its author reads.

import type { AuthorizationPolicy, ServiceEntry } from "@ambit/api/resources/kinds.ts";
import type { TranslatedPolicy } from "../translate/authorization-policy.ts";
import { isWildcardHost, meshHosts } from "../translate/service-entry.ts";
import type { Condition, ObjectStatus } from "./object-status.ts";

/** `translated` is undefined when no ztunnel has to do with the policy: it then says nothing of them. */
export function policyStatus(
  { metadata }: AuthorizationPolicy,
  translated: TranslatedPolicy | undefined,
): ObjectStatus {
  const { namespace = "", name } = metadata;
  return {
    key: { kind: "AuthorizationPolicy", namespace, name },
    conditions: translated === undefined ? [] : [ztunnelAccepted(translated)],
  };
}

function ztunnelAccepted({ accepted, reason, message }: TranslatedPolicy): Condition {
  return { type: "ZtunnelAccepted", status: accepted ? "True" : "False", reason, message };
}

/** `entry` carries the addresses that its hosts were given. */
export function serviceEntryStatus(entry: ServiceEntry): ObjectStatus {
  const { namespace = "", name } = entry.metadata;
  return {
    key: { kind: "ServiceEntry", namespace, name },
    conditions: meshHosts(entry).some(isWildcardHost) ? [WAYPOINT_MISSING] : [],
    addresses: (entry.status?.addresses ?? []).map(({ value, host = "" }) => ({ value, host })),
  };
}

const WAYPOINT_MISSING: Condition = {
  type: "istio.io/WaypointMissing",
  status: "True",
  reason: "NoWaypointForWildcardService",
  message:
    "connections to a wildcard host are refused: only a waypoint can tell which name is meant",
};
