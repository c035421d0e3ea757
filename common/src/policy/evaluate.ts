// The verdict over all policies that apply to a workload (ztunnel §4.1): deny first, then allow.
// Dry-run policies are reported and never decide.

import { type ConnectionSubject, nearestMiss, type NearMiss, policyMatches } from "./match.ts";
import { type Condition, type Policy, policyKey } from "./policy.ts";
import { formatCidr } from "../net/cidr.ts";

export type DecisionReason = "no-allow-policies" | "allowed" | "denied" | "no-allow-matched";

export interface Decision {
  readonly allowed: boolean;
  readonly reason: DecisionReason;
  /** "namespace/name" of the policy that decided. */
  readonly policy?: string;
  /** Keys of dry-run policies that matched. */
  readonly dryRunMatches: readonly string[];
}

/** `policies` are all that apply to the destination workload, in any order. */
export function evaluate(policies: readonly Policy[], subject: ConnectionSubject): Decision {
  const dryRunMatches: string[] = [];
  const matching = (action: Policy["action"]): Policy | undefined => {
    let first: Policy | undefined;
    for (const policy of policies) {
      if (policy.action !== action || (first !== undefined && !policy.dryRun)) continue;
      if (!policyMatches(policy, subject)) continue;
      if (policy.dryRun) dryRunMatches.push(policyKey(policy));
      else first = policy;
    }
    return first;
  };
  const denied = matching("deny");
  if (denied) return { allowed: false, reason: "denied", policy: policyKey(denied), dryRunMatches };
  const allowed = matching("allow");
  if (allowed)
    return { allowed: true, reason: "allowed", policy: policyKey(allowed), dryRunMatches };
  const anyAllow = policies.some(({ action, dryRun }) => action === "allow" && !dryRun);
  if (!anyAllow) return { allowed: true, reason: "no-allow-policies", dryRunMatches };
  return { allowed: false, reason: "no-allow-matched", dryRunMatches };
}

/** The refusal as ztunnel words it. */
export function refusalText(decision: Decision): string {
  return decision.reason === "denied"
    ? `policy rejection: explicitly denied by: ${decision.policy}`
    : "policy rejection: allow policies exist, but none allowed";
}

/** One line of `ambit explain`: a policy that was tried. */
export interface PolicyTrial {
  readonly policy: string;
  readonly action: Policy["action"];
  readonly scope: Policy["scope"];
  readonly dryRun: boolean;
  readonly matched: boolean;
  /** Why it did not match. */
  readonly miss?: string;
}

/** Every policy, whether it matched, and for a miss the condition that failed with its values. */
export function explainPolicies(
  policies: readonly Policy[],
  subject: ConnectionSubject,
): PolicyTrial[] {
  return policies.map((policy) => {
    const matched = policyMatches(policy, subject);
    const trial = {
      policy: policyKey(policy),
      action: policy.action,
      scope: policy.scope,
      dryRun: policy.dryRun,
      matched,
    };
    return matched ? trial : { ...trial, miss: missText(nearestMiss(policy, subject)) };
  });
}

function missText(miss: NearMiss | undefined): string {
  if (miss === undefined) return "it has no rules, so it matches nothing";
  const rule = `rule ${miss.rule + 1}`;
  if (miss.failed === undefined) return `${rule} has no condition that can match here`;
  return `${rule}: ${conditionText(miss.failed)}`;
}

function conditionText(condition: Condition): string {
  const verb = condition.negated ? "must not be any of" : "must be one of";
  return `${condition.field} ${verb} ${valuesText(condition).join(", ")}`;
}

function valuesText(condition: Condition): string[] {
  switch (condition.field) {
    case "namespaces":
    case "principals":
      return condition.values.map(({ type, value }) => {
        if (type === "exact") return value;
        return type === "presence" ? "*" : type === "prefix" ? `${value}*` : `*${value}`;
      });
    case "sourceIps":
    case "destinationIps":
      return condition.values.map(formatCidr);
    case "destinationPorts":
      return condition.values.map(String);
    case "serviceAccounts":
      return condition.values.map(
        ({ namespace, serviceAccount }) => `${namespace}/${serviceAccount}`,
      );
  }
}
