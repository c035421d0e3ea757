// The verdict over all policies that apply to a workload (ztunnel §4.1): deny first, then allow.
// Dry-run policies are reported and never decide.

import { type ConnectionSubject, nearestMiss, type NearMiss, policyMatches } from "./match.ts";
import { type Condition, type Policy, policyKey } from "./policy.ts";
import { formatCidr } from "../net/cidr.ts";

export type DecisionReason = "no-allow-policies" | "allowed" | "denied" | "no-allow-matched";

/** A dry-run policy that matched: what it would have said, were it enforced. */
export interface DryRunMatch {
  /** "namespace/name" */
  readonly policy: string;
  readonly action: Policy["action"];
}

export interface Decision {
  readonly allowed: boolean;
  readonly reason: DecisionReason;
  /** "namespace/name" of the policy that decided. */
  readonly policy?: string;
  readonly dryRunMatches: readonly DryRunMatch[];
  /** Dry-run ALLOW policies are the only ones there, and none matched: enforced, they would deny. */
  readonly dryRunMisses: boolean;
}

/** `policies` are all that apply to the destination workload, in any order. */
export function evaluate(policies: readonly Policy[], subject: ConnectionSubject): Decision {
  const deny = look(policies, "deny", subject);
  if (deny.decisive !== undefined) {
    return decide(false, "denied", deny.decisive, deny.dryRunMatches);
  }
  const allow = look(policies, "allow", subject);
  const dryRunMatches =
    deny.dryRunMatches.length === 0
      ? allow.dryRunMatches
      : [...deny.dryRunMatches, ...allow.dryRunMatches];
  if (allow.decisive !== undefined) return decide(true, "allowed", allow.decisive, dryRunMatches);
  if (allow.enforced) return decide(false, "no-allow-matched", undefined, dryRunMatches);
  const dryRunMisses = allow.dryRun && allow.dryRunMatches.length === 0;
  return { allowed: true, reason: "no-allow-policies", dryRunMatches, dryRunMisses };
}

const NO_MATCHES: readonly DryRunMatch[] = [];

interface Look {
  /** The first enforced policy that matched. */
  decisive: Policy | undefined;
  dryRunMatches: readonly DryRunMatch[];
  /** Whether there are policies of each kind at all. */
  enforced: boolean;
  dryRun: boolean;
}

function look(
  policies: readonly Policy[],
  action: Policy["action"],
  subject: ConnectionSubject,
): Look {
  const found: Look = {
    decisive: undefined,
    dryRunMatches: NO_MATCHES,
    enforced: false,
    dryRun: false,
  };
  for (const policy of policies) {
    if (policy.action !== action) continue;
    if (policy.dryRun) found.dryRun = true;
    else found.enforced = true;
    if (found.decisive !== undefined && !policy.dryRun) continue;
    if (!policyMatches(policy, subject)) continue;
    if (!policy.dryRun) found.decisive = policy;
    else found.dryRunMatches = [...found.dryRunMatches, { policy: policyKey(policy), action }];
  }
  return found;
}

function decide(
  allowed: boolean,
  reason: DecisionReason,
  policy: Policy | undefined,
  dryRunMatches: readonly DryRunMatch[],
): Decision {
  const by = policy && { policy: policyKey(policy) };
  return { allowed, reason, ...by, dryRunMatches, dryRunMisses: false };
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
