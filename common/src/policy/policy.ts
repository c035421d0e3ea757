// Our own form of an L4 authorization policy, and its parser from the wire. Values that cannot match
// anything (a string match without type, a malformed address) are dropped, as ztunnel drops them.

import {
  Action,
  type Authorization,
  type Address,
  type Match as WireMatch,
  Scope,
  type ServiceAccountMatch,
  type StringMatch as WireStringMatch,
} from "@ambit/api/gen/istio/authorization_pb.ts";
import { type Cidr, makeCidr } from "../net/cidr.ts";
import { ipFromBytes } from "../net/ip.ts";

export type PolicyScope = "global" | "namespace" | "workload";
export type PolicyAction = "allow" | "deny";

export interface Policy {
  readonly name: string;
  readonly namespace: string;
  readonly scope: PolicyScope;
  readonly action: PolicyAction;
  readonly dryRun: boolean;
  /** ORed; a policy without rules never matches. */
  readonly rules: readonly Rule[];
}

/** Clauses ANDed; none matches everything. */
export type Rule = readonly Clause[];
/** Matches ORed; none is true; a match without fields is skipped. */
export type Clause = readonly Match[];

export interface StringMatch {
  readonly type: "exact" | "prefix" | "suffix" | "presence";
  readonly value: string;
}

export interface ServiceAccount {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** One condition of a match: any of `values` must hold, or with `negated` none may. */
export type Condition = { readonly negated: boolean } & (
  | { readonly field: "namespaces" | "principals"; readonly values: readonly StringMatch[] }
  | { readonly field: "sourceIps" | "destinationIps"; readonly values: readonly Cidr[] }
  | { readonly field: "destinationPorts"; readonly values: readonly number[] }
  | { readonly field: "serviceAccounts"; readonly values: readonly ServiceAccount[] }
);

/** Conditions ANDed, in the wire's field order. */
export type Match = readonly Condition[];

/** "namespace/name": the resource's name on the wire, and how workloads refer to it. */
export function policyKey(policy: { namespace: string; name: string }): string {
  return `${policy.namespace}/${policy.name}`;
}

/** Converts a policy; a string says why it must be rejected (NACK). */
export function policyFromProto(wire: Authorization): Policy | string {
  const scope = SCOPES.get(wire.scope);
  const action = ACTIONS.get(wire.action);
  if (scope === undefined) return `unknown scope ${wire.scope}`;
  if (action === undefined) return `unknown action ${wire.action}`;
  return {
    name: wire.name,
    namespace: wire.namespace,
    scope,
    action,
    dryRun: wire.dryRun,
    rules: wire.rules.map((rule) =>
      rule.clauses.map((clause) => clause.matches.map(matchFromProto)),
    ),
  };
}

const SCOPES = new Map<Scope, PolicyScope>([
  [Scope.GLOBAL, "global"],
  [Scope.NAMESPACE, "namespace"],
  [Scope.WORKLOAD_SELECTOR, "workload"],
]);

const ACTIONS = new Map<Action, PolicyAction>([
  [Action.ALLOW, "allow"],
  [Action.DENY, "deny"],
]);

function matchFromProto(wire: WireMatch): Match {
  const all: Condition[] = [
    { field: "namespaces", negated: false, values: strings(wire.namespaces) },
    { field: "namespaces", negated: true, values: strings(wire.notNamespaces) },
    { field: "principals", negated: false, values: strings(wire.principals) },
    { field: "principals", negated: true, values: strings(wire.notPrincipals) },
    { field: "sourceIps", negated: false, values: cidrs(wire.sourceIps) },
    { field: "sourceIps", negated: true, values: cidrs(wire.notSourceIps) },
    { field: "destinationIps", negated: false, values: cidrs(wire.destinationIps) },
    { field: "destinationIps", negated: true, values: cidrs(wire.notDestinationIps) },
    { field: "destinationPorts", negated: false, values: ports(wire.destinationPorts) },
    { field: "destinationPorts", negated: true, values: ports(wire.notDestinationPorts) },
    { field: "serviceAccounts", negated: false, values: accounts(wire.serviceAccounts) },
    { field: "serviceAccounts", negated: true, values: accounts(wire.notServiceAccounts) },
  ];
  return all.filter(({ values }) => values.length > 0);
}

function strings(wire: readonly WireStringMatch[]): StringMatch[] {
  return wire.flatMap(({ matchType }): StringMatch[] => {
    if (matchType.case === undefined) return [];
    if (matchType.case === "presence") return [{ type: "presence", value: "" }];
    return [{ type: matchType.case, value: matchType.value }];
  });
}

function cidrs(wire: readonly Address[]): Cidr[] {
  return wire.flatMap(({ address, length }) => {
    const ip = ipFromBytes(address);
    const cidr = ip && makeCidr(ip, length);
    return cidr === undefined ? [] : [cidr];
  });
}

/** Ports are 16 bits wide whatever the wire says (ztunnel rbac.rs). */
function ports(wire: readonly number[]): number[] {
  return wire.map((port) => port & 0xffff);
}

function accounts(wire: readonly ServiceAccountMatch[]): ServiceAccount[] {
  return wire.map(({ namespace, serviceAccount }) => ({ namespace, serviceAccount }));
}
