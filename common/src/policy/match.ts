// Whether a policy matches a connection (ztunnel §4.2), and how near it came when it does not.

import { cidrContains } from "../net/cidr.ts";
import type { Ip } from "../net/ip.ts";
import { type Identity, principalOf } from "../tls/identity.ts";
import type { Clause, Condition, Match, Policy, Rule, StringMatch } from "./policy.ts";

/** What a policy can ask about a connection. The destination is the pod and the application's port. */
export interface ConnectionSubject {
  readonly sourceIp: Ip;
  /** From the peer's certificate; absent on plaintext. */
  readonly sourceIdentity?: Identity;
  readonly destinationIp: Ip;
  readonly destinationPort: number;
}

export function policyMatches(policy: Policy, subject: ConnectionSubject): boolean {
  return policy.rules.some((rule) => ruleMatches(rule, subject));
}

function ruleMatches(rule: Rule, subject: ConnectionSubject): boolean {
  return rule.every((clause) => clauseMatches(clause, subject));
}

function clauseMatches(clause: Clause, subject: ConnectionSubject): boolean {
  return clause.length === 0 || clause.some((match) => matchHolds(match, subject));
}

/** A match without conditions is skipped: alone, it makes its clause false. */
function matchHolds(match: Match, subject: ConnectionSubject): boolean {
  return match.length > 0 && match.every((condition) => conditionHolds(condition, subject));
}

export function conditionHolds(condition: Condition, subject: ConnectionSubject): boolean {
  return anyValueHolds(condition, subject) !== condition.negated;
}

function anyValueHolds(condition: Condition, subject: ConnectionSubject): boolean {
  const { sourceIdentity: identity } = subject;
  switch (condition.field) {
    case "namespaces":
      return identity !== undefined && anyString(condition.values, identity.namespace);
    case "principals":
      return identity !== undefined && anyString(condition.values, principalOf(identity));
    case "serviceAccounts":
      return condition.values.some(
        ({ namespace, serviceAccount }) =>
          namespace === identity?.namespace && serviceAccount === identity.serviceAccount,
      );
    case "sourceIps":
      return condition.values.some((cidr) => cidrContains(cidr, subject.sourceIp));
    case "destinationIps":
      return condition.values.some((cidr) => cidrContains(cidr, subject.destinationIp));
    case "destinationPorts":
      return condition.values.includes(subject.destinationPort);
  }
}

function anyString(values: readonly StringMatch[], text: string): boolean {
  return values.some(({ type, value }) => {
    switch (type) {
      case "exact":
        return text === value;
      case "prefix":
        return text.startsWith(value);
      case "suffix":
        return text.endsWith(value);
      case "presence":
        return text !== "";
    }
  });
}

/** Of a policy that does not match: the rule that came nearest, and the first condition that failed. */
export interface NearMiss {
  /** Index of the rule, from 0. */
  readonly rule: number;
  readonly failed?: Condition;
  /** Clauses of that rule that did hold. */
  readonly clausesHeld: number;
}

/** The rule with most clauses held; undefined when the policy has no rules. */
export function nearestMiss(policy: Policy, subject: ConnectionSubject): NearMiss | undefined {
  let best: NearMiss | undefined;
  policy.rules.forEach((rule, index) => {
    const held = rule.filter((clause) => clauseMatches(clause, subject)).length;
    if (best !== undefined && held <= best.clausesHeld) return;
    const broken = rule.find((clause) => !clauseMatches(clause, subject));
    const failed = broken && firstFailure(broken, subject);
    best = { rule: index, clausesHeld: held, ...(failed && { failed }) };
  });
  return best;
}

/** The failing condition of the match that held longest. */
function firstFailure(clause: Clause, subject: ConnectionSubject): Condition | undefined {
  let best: { held: number; failed: Condition } | undefined;
  for (const match of clause) {
    const at = match.findIndex((condition) => !conditionHolds(condition, subject));
    if (at >= 0 && (best === undefined || at > best.held)) best = { held: at, failed: match[at]! };
  }
  return best?.failed;
}
