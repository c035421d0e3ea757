// A policy as `/config_dump` shows it: what istioctl reads, with the rules in ztunnel's own form, so that
// dumps of both can be compared.

import { formatCidr } from "@ambit/common/net/cidr.ts";
import {
  type Condition,
  type Match,
  type Policy,
  policyKey,
  type StringMatch,
} from "@ambit/common/policy/policy.ts";

export function dumpPolicy(policy: Policy): Record<string, unknown> {
  const { name, namespace, scope, action, dryRun, rules } = policy;
  return {
    key: policyKey(policy),
    name,
    namespace,
    scope: SCOPES[scope],
    action: ACTIONS[action],
    dryRun,
    rules: rules.map((rule) => rule.map((clause) => clause.map(dumpMatch))),
  };
}

const SCOPES = { global: "Global", namespace: "Namespace", workload: "WorkloadSelector" } as const;
const ACTIONS = { allow: "Allow", deny: "Deny" } as const;

/** Fields by name; what is negated has a name of its own. */
function dumpMatch(match: Match): Record<string, unknown> {
  return Object.fromEntries(
    match.map((condition) => [fieldName(condition), dumpValues(condition)]),
  );
}

function fieldName({ field, negated }: Condition): string {
  return negated ? `not${field[0]!.toUpperCase()}${field.slice(1)}` : field;
}

function dumpValues(condition: Condition): readonly unknown[] {
  switch (condition.field) {
    case "namespaces":
    case "principals":
      return condition.values.map(dumpString);
    case "sourceIps":
    case "destinationIps":
      return condition.values.map(formatCidr);
    case "destinationPorts":
    case "serviceAccounts":
      return condition.values;
  }
}

function dumpString({ type, value }: StringMatch): Record<string, unknown> {
  switch (type) {
    case "exact":
      return { Exact: value };
    case "prefix":
      return { Prefix: value };
    case "suffix":
      return { Suffix: value };
    case "presence":
      return { Presence: [] };
  }
}
