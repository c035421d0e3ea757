// Policies that let nobody but a waypoint through to the workloads behind it, so that nobody goes around it
// (Istio's PILOT_AUTO_ALLOW_WAYPOINT_POLICY, off by default there as here).

import { create } from "@bufbuild/protobuf";
import {
  Action,
  type Authorization,
  AuthorizationSchema,
  Scope,
} from "@ambit/api/gen/istio/authorization_pb.ts";
import { stringMatch } from "../translate/authorization-policy.ts";
import type { MeshSettings } from "../translate/settings.ts";
import type { Waypoint } from "../translate/waypoint.ts";
import type { MeshObjects } from "./mesh-objects.ts";

/** The policy of a waypoint; undefined as long as it has no pods, whose accounts it could name. */
export function waypointPolicy(
  objects: MeshObjects,
  waypoint: Waypoint,
  { trustDomain, autoAllowWaypoints }: MeshSettings,
): Authorization | undefined {
  const accounts = autoAllowWaypoints ? accountsOf(objects, waypoint) : [];
  if (accounts.length === 0) return undefined;
  const { namespace } = waypoint;
  const principals = accounts.map((account) =>
    stringMatch(`${trustDomain}/ns/${namespace}/sa/${account}`),
  );
  return create(AuthorizationSchema, {
    name: policyName(waypoint),
    namespace,
    scope: Scope.WORKLOAD_SELECTOR,
    action: Action.ALLOW,
    rules: [{ clauses: [{ matches: [{ principals }] }] }],
  });
}

/** Keys of the policies of those waypoints that have one. */
export function waypointPolicyKeys(
  objects: MeshObjects,
  waypoints: Iterable<Waypoint | undefined>,
  { autoAllowWaypoints }: MeshSettings,
): string[] {
  if (!autoAllowWaypoints) return [];
  const keys = new Set<string>();
  for (const waypoint of waypoints) {
    if (waypoint !== undefined && accountsOf(objects, waypoint).length > 0)
      keys.add(`${waypoint.namespace}/${policyName(waypoint)}`);
  }
  return [...keys];
}

/** No name of Kubernetes has an underscore: it is nobody else's. */
function policyName({ name }: Waypoint): string {
  return `istio_allow_waypoint_${name.replace("/", "_")}`;
}

function accountsOf(objects: MeshObjects, { name }: Waypoint): string[] {
  const accounts = [...objects.instancesOf(`Gateway/${name}`)].map(
    (key) => objects.pods.get(key)?.spec.serviceAccountName ?? "default",
  );
  return [...new Set(accounts)].sort();
}
