// AuthorizationPolicy to what ztunnel enforces (facts of istiod's ambient policies). ztunnel knows L4 only:
// an ALLOW rule with HTTP attributes is left out (stricter), a DENY rule is enforced without them (broader).
// The same goes for values that nobody can read, which Istio drops though the rule then lets more through.

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
    rules: rules.filter(({ isPartial }) => isDeny || !isPartial).map(({ rule }) => rule),
    dryRun: isDryRun(metadata.annotations),
  });
  return { authorization, accepted: true, ...verdict(isDeny, rules) };
}

function scopeOf({ selector }: Spec, inRoot: boolean): Scope {
  if (selector !== undefined) return Scope.WORKLOAD_SELECTOR;
  return inRoot ? Scope.GLOBAL : Scope.NAMESPACE;
}

/** What was found in a rule that ztunnel cannot enforce as it is written. */
interface Findings {
  /** HTTP attributes. */
  readonly http: Set<string>;
  /** Values that are no port or address: `ports "http"`. */
  readonly invalid: Set<string>;
  /** Attributes that ztunnel has no word for, and that are passed over (as Istio does). */
  readonly ignored: Set<string>;
}

/** A rule as far as ztunnel can enforce it. */
interface L4Rule extends Findings {
  readonly rule: WireRule;
  /** What is left is not what was asked for: it would let more through, or stop more. */
  readonly isPartial: boolean;
}

function verdict(
  isDeny: boolean,
  rules: readonly L4Rule[],
): Pick<TranslatedPolicy, "reason" | "message" | "ineffective"> {
  const listed = (of: (rule: L4Rule) => Set<string>) =>
    [...new Set(rules.flatMap((rule) => [...of(rule)]))].sort().join(", ");
  const [http, invalid, ignored] = [
    listed((rule) => rule.http),
    listed((rule) => rule.invalid),
    listed((rule) => rule.ignored),
  ];
  const left = rules.filter(({ rule, isPartial }) => (isDeny ? !neverMatches(rule) : !isPartial));
  const parts = [
    ...(http === ""
      ? []
      : [
          `ztunnel does not support HTTP attributes (found: ${http}). In ambient mode you must use a ` +
            `waypoint proxy to enforce HTTP rules.`,
        ]),
    ...(invalid === "" ? [] : [`These values are no ports or addresses: ${invalid}.`]),
    ...(ignored === "" ? [] : [`ztunnel does not heed ${ignored}.`]),
    ...(rules.some(({ isPartial }) => isPartial) ? [consequence(isDeny, left.length)] : []),
  ];
  const isVain = isDeny && left.length === 0;
  if (parts.length === 0) {
    const accepted = { reason: "Accepted", message: "attached to ztunnel" } as const;
    return isVain
      ? { ...accepted, ineffective: "a DENY policy without rules denies nothing" }
      : accepted;
  }
  const message = parts.join(" ");
  return { reason: "UnsupportedValue", message, ...(isVain && { ineffective: message }) };
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
 * A DENY rule as it is enforced without the attributes that it lost: a clause that asked for nothing else
 * holds always. When nothing at all is left, the rule has no effect rather than to deny everything.
 */
function broadened(translated: L4Rule): L4Rule {
  const { rule, isPartial } = translated;
  if (!isPartial) return translated;
  const left = rule.clauses.filter(({ matches }) => !matches.some(isEmptyMatch));
  return left.length === 0 ? translated : { ...translated, rule: { ...rule, clauses: left } };
}

/** ztunnel passes over a match that asks for nothing; a clause of only such ones never holds. */
function neverMatches({ clauses }: WireRule): boolean {
  return clauses.some(({ matches }) => matches.every(isEmptyMatch));
}

function isEmptyMatch(match: Match): boolean {
  return Object.values(match).every((value) => !Array.isArray(value) || value.length === 0);
}

function translateRule({ to = [], from = [], when = [] }: SpecRule, namespace: string): L4Rule {
  const reader = new RuleReader(namespace);
  const groups = [
    to.map(({ operation }) => reader.operation(operation)),
    from.map(({ source }) => reader.source(source)),
    ...when.map((condition) => [reader.condition(condition)]),
  ];
  const clauses = groups.filter((matches) => matches.length > 0).map((matches) => ({ matches }));
  const { http, invalid, ignored, isPartial } = reader;
  return { rule: { clauses } as WireRule, http, invalid, ignored, isPartial };
}

const L7_SOURCE_FIELDS = [
  "requestPrincipals",
  "notRequestPrincipals",
  "remoteIpBlocks",
  "notRemoteIpBlocks",
] as const;
const IGNORED_SOURCE_FIELDS = ["trustDomains", "notTrustDomains"] as const;
const L7_OPERATION_FIELDS = [
  "hosts",
  "notHosts",
  "methods",
  "notMethods",
  "paths",
  "notPaths",
] as const;

/** Reads the parts of one rule and notes what it cannot take over. */
class RuleReader implements Findings {
  readonly http = new Set<string>();
  readonly invalid = new Set<string>();
  readonly ignored = new Set<string>();
  readonly #namespace: string;
  #lostValues = false;

  constructor(namespace: string) {
    this.#namespace = namespace;
  }

  get isPartial(): boolean {
    return this.#lostValues || this.http.size > 0;
  }

  source(source: Source): Match {
    for (const field of L7_SOURCE_FIELDS) if (source[field]?.length) this.http.add(field);
    for (const field of IGNORED_SOURCE_FIELDS) if (source[field]?.length) this.ignored.add(field);
    return create(MatchSchema, {
      principals: principals(source.principals),
      notPrincipals: principals(source.notPrincipals),
      namespaces: strings(source.namespaces),
      notNamespaces: strings(source.notNamespaces),
      sourceIps: this.#wanted("ipBlocks", source.ipBlocks, cidrOf),
      notSourceIps: this.#unwanted("notIpBlocks", source.notIpBlocks, cidrOf),
      serviceAccounts: accounts(source.serviceAccounts, this.#namespace),
      notServiceAccounts: accounts(source.notServiceAccounts, this.#namespace),
    });
  }

  operation(operation: Operation): Match {
    for (const field of L7_OPERATION_FIELDS) if (operation[field]?.length) this.http.add(field);
    return create(MatchSchema, {
      destinationPorts: this.#wanted("ports", operation.ports, parsePort),
      notDestinationPorts: this.#unwanted("notPorts", operation.notPorts, parsePort),
    });
  }

  condition({ key, values, notValues }: When): Match {
    switch (key) {
      case "source.ip":
        return create(MatchSchema, {
          sourceIps: this.#wanted(key, values, cidrOf),
          notSourceIps: this.#unwanted(key, notValues, cidrOf),
        });
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
          destinationIps: this.#wanted(key, values, cidrOf),
          notDestinationIps: this.#unwanted(key, notValues, cidrOf),
        });
      case "destination.port":
        return create(MatchSchema, {
          destinationPorts: this.#wanted(key, values, parsePort),
          notDestinationPorts: this.#unwanted(key, notValues, parsePort),
        });
      default:
        this.http.add(key);
        return create(MatchSchema);
    }
  }

  /** Any of the values will do: one that is lost matters only when none is left. */
  #wanted<T>(field: string, values: Values, parse: (text: string) => T | undefined): T[] {
    const parsed = this.#parsed(field, values, parse);
    if (parsed.length === 0 && values?.length) this.#lostValues = true;
    return parsed;
  }

  /** None of the values may be: each that is lost matters. */
  #unwanted<T>(field: string, values: Values, parse: (text: string) => T | undefined): T[] {
    const parsed = this.#parsed(field, values, parse);
    if (parsed.length < (values?.length ?? 0)) this.#lostValues = true;
    return parsed;
  }

  #parsed<T>(field: string, values: Values = [], parse: (text: string) => T | undefined): T[] {
    return values.flatMap((text) => {
      const value = parse(text);
      if (value !== undefined) return [value];
      this.invalid.add(`${field} "${text}"`);
      return [];
    });
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

function cidrOf(text: string): { address: Uint8Array; length: number } | undefined {
  const cidr = parseCidr(text);
  return cidr && { address: ipToBytes(cidr.ip), length: cidr.prefixLength };
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
