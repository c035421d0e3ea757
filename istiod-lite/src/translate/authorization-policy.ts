// AuthorizationPolicy to what ztunnel enforces (facts of istiod's ambient policies). ztunnel knows L4
// only: an ALLOW rule with L7 conditions is left out, a DENY rule is enforced without them (broader).

import { create } from "@bufbuild/protobuf";
import {
  Action,
  type Authorization,
  AuthorizationSchema,
  type Match,
  MatchSchema,
  Scope,
  type StringMatch,
  StringMatchSchema,
} from "@ambit/api/gen/istio/authorization_pb.ts";
import type { AuthorizationPolicy } from "@ambit/api/resources/kinds.ts";
import { parseCidr } from "@ambit/common/net/cidr.ts";
import { ipToBytes } from "@ambit/common/net/ip.ts";
import { parsePort } from "@ambit/common/net/socket-address.ts";

type Spec = AuthorizationPolicy["spec"];
type WireRule = Authorization["rules"][number];
type SpecRule = NonNullable<Spec["rules"]>[number];
type Source = NonNullable<SpecRule["from"]>[number]["source"];
type Operation = NonNullable<SpecRule["to"]>[number]["operation"];
type When = NonNullable<SpecRule["when"]>[number];

/** What became of a policy: the resource, if any, and the status to show. */
export interface TranslatedPolicy {
  readonly authorization?: Authorization;
  readonly accepted: boolean;
  readonly reason: "Accepted" | "UnsupportedValue";
  readonly message: string;
}

/** undefined: the policy is not ztunnel's (it targets a waypoint). */
export function translateAuthorizationPolicy(
  policy: AuthorizationPolicy,
  rootNamespace: string,
): TranslatedPolicy | undefined {
  const { spec, metadata } = policy;
  if (spec.targetRef !== undefined || spec.targetRefs !== undefined) return undefined;
  if (spec.action !== "ALLOW" && spec.action !== "DENY") {
    return refused(`ztunnel does not support the ${spec.action} action`);
  }
  if (metadata.annotations?.["istio.io/dry-run"] === "true") {
    return refused("ztunnel does not support dry-run mode: the policy has no effect");
  }
  const found = new Set<string>();
  const namespace = metadata.namespace ?? "";
  const rules = (spec.rules ?? []).flatMap((rule) =>
    translateRule(rule, namespace, spec.action === "DENY", found),
  );
  const authorization = create(AuthorizationSchema, {
    name: metadata.name,
    namespace,
    scope: scopeOf(spec, namespace === rootNamespace),
    action: spec.action === "DENY" ? Action.DENY : Action.ALLOW,
    rules,
  });
  return { authorization, accepted: true, ...verdict(spec, found, rules.length) };
}

function scopeOf({ selector }: Spec, inRoot: boolean): Scope {
  if (selector !== undefined) return Scope.WORKLOAD_SELECTOR;
  return inRoot ? Scope.GLOBAL : Scope.NAMESPACE;
}

function refused(message: string): TranslatedPolicy {
  return { accepted: false, reason: "UnsupportedValue", message };
}

function verdict(
  { action }: Spec,
  found: ReadonlySet<string>,
  rulesLeft: number,
): Pick<TranslatedPolicy, "reason" | "message"> {
  if (found.size === 0) return { reason: "Accepted", message: "attached to ztunnel" };
  const list = [...found].sort().join(", ");
  const start = `ztunnel does not support HTTP attributes (found: ${list}). In ambient mode you must use a waypoint proxy to enforce HTTP rules.`;
  if (action === "DENY") {
    return {
      reason: "UnsupportedValue",
      message: `${start} Within a DENY rule, HTTP attributes are omitted: the rule denies more than it says.`,
    };
  }
  const end =
    rulesLeft === 0
      ? "No rule is left, so the policy denies all requests."
      : "Rules with HTTP attributes are omitted: the policy allows less than it says.";
  return { reason: "UnsupportedValue", message: `${start} ${end}` };
}

/** One rule; none when it is an ALLOW rule that depends on L7. */
function translateRule(
  rule: SpecRule,
  namespace: string,
  isDeny: boolean,
  found: Set<string>,
): WireRule[] {
  const seen = new Set<string>();
  const clauses = [
    ...(rule.to
      ? [{ matches: rule.to.map(({ operation }) => operationMatch(operation, seen)) }]
      : []),
    ...(rule.from
      ? [{ matches: rule.from.map(({ source }) => sourceMatch(source, namespace, seen)) }]
      : []),
    ...(rule.when ?? []).map((when) => ({ matches: [whenMatch(when, seen)] })),
  ];
  for (const name of seen) found.add(name);
  if (seen.size > 0 && !isDeny) return [];
  return [{ clauses } as WireRule];
}

const L7_SOURCE_FIELDS = [
  "requestPrincipals",
  "notRequestPrincipals",
  "remoteIpBlocks",
  "notRemoteIpBlocks",
] as const;

function sourceMatch(source: Source, namespace: string, found: Set<string>): Match {
  for (const field of L7_SOURCE_FIELDS) if (source[field] !== undefined) found.add(field);
  return create(MatchSchema, {
    principals: principals(source.principals),
    notPrincipals: principals(source.notPrincipals),
    namespaces: strings(source.namespaces),
    notNamespaces: strings(source.notNamespaces),
    sourceIps: cidrs(source.ipBlocks),
    notSourceIps: cidrs(source.notIpBlocks),
    serviceAccounts: accounts(source.serviceAccounts, namespace),
    notServiceAccounts: accounts(source.notServiceAccounts, namespace),
  });
}

const L7_OPERATION_FIELDS = [
  "hosts",
  "notHosts",
  "methods",
  "notMethods",
  "paths",
  "notPaths",
] as const;

function operationMatch(operation: Operation, found: Set<string>): Match {
  for (const field of L7_OPERATION_FIELDS) if (operation[field] !== undefined) found.add(field);
  return create(MatchSchema, {
    destinationPorts: ports(operation.ports),
    notDestinationPorts: ports(operation.notPorts),
  });
}

function whenMatch({ key, values, notValues }: When, found: Set<string>): Match {
  switch (key) {
    case "source.ip":
      return create(MatchSchema, { sourceIps: cidrs(values), notSourceIps: cidrs(notValues) });
    case "source.namespace":
      return create(MatchSchema, {
        namespaces: strings(values),
        notNamespaces: strings(notValues),
      });
    case "source.principal":
      return create(MatchSchema, {
        principals: principals(values),
        notPrincipals: principals(notValues),
      });
    case "destination.ip":
      return create(MatchSchema, {
        destinationIps: cidrs(values),
        notDestinationIps: cidrs(notValues),
      });
    case "destination.port":
      return create(MatchSchema, {
        destinationPorts: ports(values),
        notDestinationPorts: ports(notValues),
      });
    default:
      found.add(key);
      return create(MatchSchema);
  }
}

type Values = readonly string[] | undefined;

/** "*" is presence, "x*" a prefix, "*x" a suffix, anything else exact. */
export function stringMatch(text: string): StringMatch {
  if (text === "*")
    return create(StringMatchSchema, { matchType: { case: "presence", value: {} } });
  if (text.startsWith("*"))
    return create(StringMatchSchema, { matchType: { case: "suffix", value: text.slice(1) } });
  if (text.endsWith("*"))
    return create(StringMatchSchema, { matchType: { case: "prefix", value: text.slice(0, -1) } });
  return create(StringMatchSchema, { matchType: { case: "exact", value: text } });
}

function strings(values: Values = []): StringMatch[] {
  return values.map(stringMatch);
}

/** Principals are matched without their scheme. */
function principals(values: Values = []): StringMatch[] {
  return values.map((value) => stringMatch(value.replace(/^spiffe:\/\//, "")));
}

function cidrs(values: Values = []): { address: Uint8Array; length: number }[] {
  return values.flatMap((text) => {
    const cidr = parseCidr(text);
    return cidr === undefined ? [] : [{ address: ipToBytes(cidr.ip), length: cidr.prefixLength }];
  });
}

function ports(values: Values = []): number[] {
  return values.flatMap((text) => parsePort(text) ?? []);
}

/** "account" of the policy's own namespace, or "namespace/account". */
function accounts(
  values: Values = [],
  namespace: string,
): { namespace: string; serviceAccount: string }[] {
  return values.map((text) => {
    const slash = text.indexOf("/");
    return slash < 0
      ? { namespace, serviceAccount: text }
      : { namespace: text.slice(0, slash), serviceAccount: text.slice(slash + 1) };
  });
}
