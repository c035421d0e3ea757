// What becomes of rules, as the conditions that their authors read: whether proxies can enforce them, which
// ones do, and what has no effect although it is allowed to be written.

import type { AuthorizationPolicy, PeerAuthentication } from "@ambit/api/resources/kinds.ts";
import type { Target } from "../model/policy-targets.ts";
import { isDryRun, type TranslatedPolicy } from "../translate/authorization-policy.ts";
import type { Labels } from "../translate/labels.ts";
import { selectsWorkloads } from "../translate/peer-authentication.ts";
import type { MeshSettings } from "../translate/settings.ts";
import type { Condition, Enforcement, ObjectStatus } from "./object-status.ts";

/** A policy that ztunnels are to enforce. */
export function ztunnelPolicyStatus(
  policy: AuthorizationPolicy,
  translated: TranslatedPolicy,
  settings: MeshSettings,
): ObjectStatus {
  const { accepted, reason, message, ineffective } = translated;
  const status = accepted ? "True" : "False";
  return {
    ...statusOf(policy),
    conditions: [{ type: "ZtunnelAccepted", status, reason, message }],
    enforcement:
      ineffective === undefined
        ? atZtunnels(policy, settings)
        : { kind: "nobody", why: ineffective },
  };
}

function atZtunnels(
  { spec, metadata }: AuthorizationPolicy,
  { rootNamespace }: MeshSettings,
): Enforcement {
  const { namespace = "", name, annotations } = metadata;
  const where = whereOf(namespace, rootNamespace, spec.selector?.matchLabels);
  return {
    kind: "proxies",
    where: isDryRun(annotations) ? `${where}, as a dry run that only logs` : where,
    resource: `${namespace}/${name}`,
  };
}

/** The pods that a rule is for, as the place where it is enforced. */
function whereOf(namespace: string, rootNamespace: string, labels: Labels = {}): string {
  const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  const pods = pairs.length === 0 ? "every pod" : `pods with ${pairs.join(", ")}`;
  return namespace === rootNamespace
    ? `the ztunnels of ${pods} of the mesh`
    : `the ztunnels of ${pods} of namespace ${namespace}`;
}

/** A policy that waypoints are to enforce. */
export function waypointPolicyStatus(
  policy: AuthorizationPolicy,
  targets: readonly Target[],
): ObjectStatus {
  const waypoints = new Set(targets.flatMap((it) => ("waypoint" in it ? [it.waypoint] : [])));
  const failed = targets.filter((it) => "reason" in it);
  const why = failed.map(({ message }) => message).join("; ");
  const type = "WaypointAccepted";
  if (waypoints.size === 0) {
    const reason = failed[0]?.reason ?? "Invalid";
    return {
      ...statusOf(policy),
      conditions: [{ type, status: "False", reason, message: why }],
      enforcement: { kind: "nobody", why: `no waypoint enforces it: ${why}` },
    };
  }
  const bound = `bound to ${[...waypoints].join(", ")}`;
  const condition: Condition =
    failed.length === 0
      ? { type, status: "True", reason: "Accepted", message: bound }
      : { type, status: "True", reason: "PartiallyInvalid", message: `${bound}; ${why}` };
  return { ...statusOf(policy), conditions: [condition] };
}

/** `counts` is the one of its level that holds; `resource` what this one became, if anything. */
export function peerAuthenticationStatus(
  policy: PeerAuthentication,
  counts: PeerAuthentication | undefined,
  resource: string | undefined,
  { rootNamespace }: MeshSettings,
): ObjectStatus {
  const { namespace = "" } = policy.metadata;
  const selects = selectsWorkloads(policy);
  const base = { ...statusOf(policy), conditions: [] };
  if (selects && namespace === rootNamespace) {
    const why = "in the root namespace a PeerAuthentication with a selector has no effect";
    return { ...base, enforcement: { kind: "nobody", why } };
  }
  if (!selects && counts !== undefined && counts.metadata.name !== policy.metadata.name) {
    const why = `${counts.metadata.name} is older and counts instead: one PeerAuthentication without selector holds per namespace`;
    return { ...base, enforcement: { kind: "nobody", why } };
  }
  const place = whereOf(namespace, rootNamespace, policy.spec.selector?.matchLabels);
  const where = [place, ...remarks(policy, selects)].join("; ");
  return { ...base, enforcement: { kind: "proxies", where, ...(resource && { resource }) } };
}

/** What of it does not do what it says. */
function remarks({ spec }: PeerAuthentication, selects: boolean): string[] {
  const ports = Object.values(spec.portLevelMtls ?? {});
  const modes = [spec.mtls, ...ports].map((it) => it?.mode);
  return [
    ...(modes.includes("DISABLE") ? ["DISABLE is as PERMISSIVE, tunnels stay possible"] : []),
    ...(ports.length > 0 && !selects ? ["its ports are not heeded, they need a selector"] : []),
  ];
}

function statusOf({ kind, metadata }: AuthorizationPolicy | PeerAuthentication) {
  const { namespace = "", name, generation } = metadata;
  return { key: { kind, namespace, name }, generation };
}
