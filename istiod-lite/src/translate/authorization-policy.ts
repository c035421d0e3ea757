// AuthorizationPolicy to what ztunnel enforces (facts of istiod's ambient policies). ztunnel knows L4 only:
// an ALLOW rule with HTTP attributes is left out (stricter), a DENY rule is enforced without them (broader).

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
import { isTrue } from "./labels.ts";
import type { MeshSettings } from "./settings.ts";

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
  /** Why it does nothing at all, when that is so. */
  readonly ineffective?: string;
}

/** Whether the policy is for ztunnels at all: one that targets a waypoint or a service is not. */
export function isForZtunnel({ spec }: AuthorizationPolicy): boolean {
  return spec.targetRef === undefined && (spec.targetRefs ?? []).length === 0;
}

/** Why no ztunnel is sent the policy; undefined when they are. */
function unsendable({ spec, metadata }: AuthorizationPolicy, dryRunPolicies: boolean) {
  if (spec.action !== "ALLOW" && spec.action !== "DENY") {
    return `ztunnel does not support the ${spec.action} action`;
  }
  return isDryRun(metadata.annotations) && !dryRunPolicies
    ? "dry runs are switched off for ztunnels: the policy has no effect"
    : undefined;
}

/** Whether ztunnels are sent the policy, so that workloads may name it. */
export function isSentToZtunnel(
  policy: AuthorizationPolicy,
  { dryRunPolicies }: MeshSettings,
): boolean {
  return isForZtunnel(policy) && unsendable(policy, dryRunPolicies) === undefined;
}

export function isDryRun(annotations: Readonly<Record<string, string>> = {}): boolean {
  return isTrue(annotations["istio.io/dry-run"]);
}

/** undefined: the policy is not ztunnel's. */
export function translateAuthorizationPolicy(
  policy: AuthorizationPolicy,
  { rootNamespace, dryRunPolicies }: MeshSettings,
): TranslatedPolicy | undefined {
  if (!isForZtunnel(policy)) return undefined;
  const { spec, metadata } = policy;
  const refusal = unsendable(policy, dryRunPolicies);
  if (refusal !== undefined) {
    return {
      accepted: false,
      reason: "UnsupportedValue",
      message: refusal,
      ineffective: refusal,
    };
  }
  const namespace = metadata.namespace ?? "";
  const isDeny = spec.action === "DENY";
  const rules = (spec.rules ?? []).map((rule) => {
    const translated = translateRule(rule, namespace);
    return isDeny ? broadened(translated) : translated;
  });
  const authorization = create(AuthorizationSchema, {
    name: metadata.name,
    namespace,
    scope: scopeOf(spec, namespace === rootNamespace),
    action: isDeny ? Action.DENY : Action.ALLOW,
    rules: rules.filter(({ http }) => isDeny || http.length === 0).map(({ rule }) => rule),
    dryRun: isDryRun(metadata.annotations),
  });
  return { authorization, accepted: true, ...verdict(isDeny, rules) };
}

function scopeOf({ selector }: Spec, inRoot: boolean): Scope {
  if (selector !== undefined) return Scope.WORKLOAD_SELECTOR;
  return inRoot ? Scope.GLOBAL : Scope.NAMESPACE;
}

/** A rule without its HTTP attributes, and their names. */
interface L4Rule {
  readonly rule: WireRule;
  readonly http: readonly string[];
}

function verdict(
  isDeny: boolean,
  rules: readonly L4Rule[],
): Pick<TranslatedPolicy, "reason" | "message" | "ineffective"> {
  const found = new Set(rules.flatMap(({ http }) => http));
  if (found.size === 0) {
    const accepted = { reason: "Accepted", message: "attached to ztunnel" } as const;
    return isDeny && rules.length === 0
      ? { ...accepted, ineffective: "a DENY policy without rules denies nothing" }
      : accepted;
  }
  const list = [...found].sort().join(", ");
  const left = rules.filter(({ rule, http }) => (isDeny ? !neverMatches(rule) : http.length === 0));
  const message =
    `ztunnel does not support HTTP attributes (found: ${list}). In ambient mode you must use a ` +
    `waypoint proxy to enforce HTTP rules. ${consequence(isDeny, left.length)}`;
  return {
    reason: "UnsupportedValue",
    message,
    ...(isDeny && left.length === 0 && { ineffective: message }),
  };
}

function consequence(isDeny: boolean, rulesLeft: number): string {
  if (isDeny) {
    return rulesLeft === 0
      ? "No rule of this DENY policy says anything else, so it has no effect."
      : "This DENY policy is enforced without them: it denies more than it says.";
  }
  return rulesLeft === 0
    ? "No rule of this ALLOW policy is left, so it denies everything."
    : "This ALLOW policy is enforced without the rules that have them: it allows less than it says.";
}

/**
 * A DENY rule as it is enforced without its HTTP attributes: a clause that asked for nothing else holds
 * always. When nothing at all is left, the rule has no effect rather than to deny everything.
 */
function broadened({ rule, http }: L4Rule): L4Rule {
  if (http.length === 0) return { rule, http };
  const left = rule.clauses.filter(({ matches }) => !matches.some(isEmptyMatch));
  return { rule: left.length === 0 ? rule : { ...rule, clauses: left }, http };
}

/** ztunnel passes over a match that asks for nothing; a clause of only such ones never holds. */
function neverMatches({ clauses }: WireRule): boolean {
  return clauses.some(({ matches }) => matches.every(isEmptyMatch));
}

function isEmptyMatch(match: Match): boolean {
  return Object.values(match).every((value) => !Array.isArray(value) || value.length === 0);
}

function translateRule({ to = [], from = [], when = [] }: SpecRule, namespace: string): L4Rule {
  const http = new Set<string>();
  const groups = [
    to.map(({ operation }) => operationMatch(operation, http)),
    from.map(({ source }) => sourceMatch(source, namespace, http)),
    ...when.map((condition) => [whenMatch(condition, http)]),
  ];
  const clauses = groups.filter((matches) => matches.length > 0).map((matches) => ({ matches }));
  return { rule: { clauses } as WireRule, http: [...http] };
}

const L7_SOURCE_FIELDS = [
  "requestPrincipals",
  "notRequestPrincipals",
  "remoteIpBlocks",
  "notRemoteIpBlocks",
] as const;

function sourceMatch(source: Source, namespace: string, found: Set<string>): Match {
  for (const field of L7_SOURCE_FIELDS) if (source[field]?.length) found.add(field);
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
  for (const field of L7_OPERATION_FIELDS) if (operation[field]?.length) found.add(field);
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
