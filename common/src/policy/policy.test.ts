import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  Action,
  type Authorization,
  AuthorizationSchema,
  type MatchSchema,
  Scope,
} from "@ambit/api/gen/istio/authorization_pb.ts";
import { ipToBytes, parseIp } from "../net/ip.ts";
import type { Identity } from "../tls/identity.ts";
import { evaluate, explainPolicies, refusalText } from "./evaluate.ts";
import { type ConnectionSubject, policyMatches } from "./match.ts";
import { type Policy, policyFromProto } from "./policy.ts";

type WireMatch = MessageInitShape<typeof MatchSchema>;

const ip = (text: string) => parseIp(text)!;
const alice: Identity = { trustDomain: "td", namespace: "ns1", serviceAccount: "alice" };
const bob: Identity = { trustDomain: "td", namespace: "ns2", serviceAccount: "bob" };
const plain: ConnectionSubject = {
  sourceIp: ip("10.0.0.1"),
  destinationIp: ip("10.0.0.2"),
  destinationPort: 8080,
};
const tls: ConnectionSubject = { ...plain, sourceIdentity: alice };
const other: ConnectionSubject = { ...plain, sourceIdentity: bob };

const exact = (value: string) => ({ matchType: { case: "exact" as const, value } });
const prefix = (value: string) => ({ matchType: { case: "prefix" as const, value } });
const suffix = (value: string) => ({ matchType: { case: "suffix" as const, value } });
const presence = { matchType: { case: "presence" as const, value: {} } };
const cidr = (text: string, length: number) => ({ address: ipToBytes(ip(text)), length });

function policy(rules: WireMatch[][][], changes: Partial<Authorization> = {}): Policy {
  const wire = create(AuthorizationSchema, {
    name: "p",
    namespace: "ns",
    scope: Scope.NAMESPACE,
    action: Action.ALLOW,
    rules: rules.map((clauses) => ({ clauses: clauses.map((matches) => ({ matches })) })),
    ...changes,
  } as MessageInitShape<typeof AuthorizationSchema>);
  const parsed = policyFromProto(wire);
  if (typeof parsed === "string") throw new Error(parsed);
  return parsed;
}

describe("the shape of a policy", () => {
  it.each<[string, WireMatch[][][], boolean]>([
    ["no rules never match", [], false],
    ["a rule without clauses always matches", [[]], true],
    ["a clause without matches is true", [[[]]], true],
    ["a clause of only empty matches is false", [[[{}]]], false],
    [
      "an empty match beside one that holds does no harm",
      [[[{}, { destinationPorts: [8080] }]]],
      true,
    ],
    ["clauses are ANDed", [[[{ destinationPorts: [8080] }], [{ destinationPorts: [1] }]]], false],
    ["matches are ORed", [[[{ destinationPorts: [1] }, { destinationPorts: [8080] }]]], true],
    ["rules are ORed", [[[{ destinationPorts: [1] }]], [[{ destinationPorts: [8080] }]]], true],
    [
      "fields of a match are ANDed",
      [[[{ destinationPorts: [8080], sourceIps: [cidr("10.9.0.0", 16)] }]]],
      false,
    ],
    ["values of a field are ORed", [[[{ destinationPorts: [1, 8080] }]]], true],
    [
      "a string match without type is dropped, and leaves an empty match",
      [[[{ principals: [{}] }]]],
      false,
    ],
    [
      "a malformed address is dropped likewise",
      [[[{ sourceIps: [{ address: Uint8Array.of(1), length: 8 }] }]]],
      false,
    ],
  ])("%s", (_, rules, matches) => {
    expect(policyMatches(policy(rules), tls)).toBe(matches);
  });
});

describe("every field, for plaintext, its identity and another", () => {
  it.each<[string, WireMatch, [boolean, boolean, boolean]]>([
    ["principal", { principals: [exact("td/ns/ns1/sa/alice")] }, [false, true, false]],
    ["not principal", { notPrincipals: [exact("td/ns/ns1/sa/alice")] }, [true, false, true]],
    ["any principal", { principals: [presence] }, [false, true, true]],
    ["no principal", { notPrincipals: [presence] }, [true, false, false]],
    ["principal prefix", { principals: [prefix("td/ns/ns1/")] }, [false, true, false]],
    ["principal suffix", { principals: [suffix("/alice")] }, [false, true, false]],
    [
      "principal with scheme never matches",
      { principals: [exact("spiffe://td/ns/ns1/sa/alice")] },
      [false, false, false],
    ],
    ["namespace", { namespaces: [exact("ns1")] }, [false, true, false]],
    ["not namespace", { notNamespaces: [exact("ns1")] }, [true, false, true]],
    ["any namespace", { namespaces: [presence] }, [false, true, true]],
    [
      "service account",
      { serviceAccounts: [{ namespace: "ns1", serviceAccount: "alice" }] },
      [false, true, false],
    ],
    [
      "not service account",
      { notServiceAccounts: [{ namespace: "ns1", serviceAccount: "alice" }] },
      [true, false, true],
    ],
    [
      "service account of another namespace",
      { serviceAccounts: [{ namespace: "ns2", serviceAccount: "alice" }] },
      [false, false, false],
    ],
    ["source block", { sourceIps: [cidr("10.0.0.0", 24)] }, [true, true, true]],
    ["not source block", { notSourceIps: [cidr("10.0.0.0", 24)] }, [false, false, false]],
    ["source of the other family", { sourceIps: [cidr("::", 0)] }, [false, false, false]],
    ["destination address", { destinationIps: [cidr("10.0.0.2", 32)] }, [true, true, true]],
    [
      "not destination address",
      { notDestinationIps: [cidr("10.0.0.2", 32)] },
      [false, false, false],
    ],
    ["port", { destinationPorts: [8080] }, [true, true, true]],
    ["not port", { notDestinationPorts: [8080] }, [false, false, false]],
    ["port beyond 16 bits wraps", { destinationPorts: [65_536 + 8080] }, [true, true, true]],
  ])("%s", (_, match, expected) => {
    const one = policy([[[match]]]);
    expect([plain, tls, other].map((subject) => policyMatches(one, subject))).toEqual(expected);
  });
});

describe("the verdict", () => {
  const always: WireMatch[][][] = [[]];
  const never: WireMatch[][][] = [];
  const deny = (rules: WireMatch[][][], name = "deny") =>
    policy(rules, { action: Action.DENY, name });
  const allow = (rules: WireMatch[][][], name = "allow") => policy(rules, { name });

  it.each<[string, Policy[], boolean, string]>([
    ["no policies allow", [], true, "no-allow-policies"],
    ["a deny that misses allows", [deny(never)], true, "no-allow-policies"],
    ["a deny that matches denies", [deny(always)], false, "denied"],
    ["deny beats allow, in any order", [allow(always), deny(always)], false, "denied"],
    ["an allow that matches allows", [allow(always)], true, "allowed"],
    ["an allow that misses denies", [allow(never)], false, "no-allow-matched"],
    ["one of several allows is enough", [allow(never), allow(always, "b")], true, "allowed"],
  ])("%s", (_, policies, allowed, reason) => {
    expect(evaluate(policies, tls)).toMatchObject({ allowed, reason });
  });

  it("never lets dry-run policies decide, and names those that matched", () => {
    const dry = [
      policy(always, { action: Action.DENY, name: "dry", dryRun: true }),
      policy(never, { name: "dry2", dryRun: true }),
    ];
    expect(evaluate(dry, tls)).toEqual({
      allowed: true,
      reason: "no-allow-policies",
      dryRunMatches: [{ policy: "ns/dry", action: "deny" }],
      dryRunMisses: true,
    });
  });

  const dryAllow = (rules: WireMatch[][][], name = "dry-allow") =>
    policy(rules, { name, dryRun: true });
  const dryDeny = (rules: WireMatch[][][], name = "dry-deny") =>
    policy(rules, { action: Action.DENY, name, dryRun: true });

  it.each<[string, Policy[], object]>([
    [
      "that allows and matches",
      [dryAllow(always)],
      { allowed: true, dryRunMatches: [{ policy: "ns/dry-allow" }], dryRunMisses: false },
    ],
    [
      "that allows and misses, where nothing else allows",
      [dryAllow(never)],
      { allowed: true, dryRunMatches: [], dryRunMisses: true },
    ],
    [
      "that allows and misses beside an enforced one",
      [dryAllow(never), allow(always)],
      { allowed: true, reason: "allowed", dryRunMatches: [], dryRunMisses: false },
    ],
    [
      "that allows, matches, and cannot save what is denied for want of an enforced one",
      [dryAllow(always), allow(never)],
      { allowed: false, reason: "no-allow-matched", dryRunMatches: [{ action: "allow" }] },
    ],
    [
      "that allows is not asked about what is denied",
      [dryAllow(always), deny(always)],
      { allowed: false, reason: "denied", dryRunMatches: [] },
    ],
    [
      "that denies is asked about it",
      [deny(always), dryDeny(always)],
      { allowed: false, reason: "denied", dryRunMatches: [{ policy: "ns/dry-deny" }] },
    ],
    [
      "of both kinds",
      [dryAllow(always), dryDeny(always), dryDeny(always, "dry-deny-2")],
      {
        allowed: true,
        dryRunMatches: [{ action: "deny" }, { action: "deny" }, { action: "allow" }],
      },
    ],
  ])("a dry-run policy %s", (_, policies, expected) => {
    expect(evaluate(policies, tls)).toMatchObject(expected);
  });

  it("words refusals as ztunnel does", () => {
    expect(refusalText(evaluate([deny(always)], tls))).toBe(
      "policy rejection: explicitly denied by: ns/deny",
    );
    expect(refusalText(evaluate([allow(never)], tls))).toBe(
      "policy rejection: allow policies exist, but none allowed",
    );
  });

  it("explains the nearest miss with the field that failed", () => {
    const near = allow([
      [[{ destinationPorts: [1] }]],
      [[{ destinationPorts: [8080] }], [{ principals: [exact("td/ns/x/sa/y")] }]],
    ]);
    expect(explainPolicies([near], tls)[0]).toMatchObject({
      matched: false,
      miss: "rule 2: principals must be one of td/ns/x/sa/y",
    });
    expect(explainPolicies([allow(never)], tls)[0]?.miss).toContain("no rules");
  });

  it("agrees with a plain reading of the definition", () => {
    const match = fc.record({
      destinationPorts: fc.array(fc.constantFrom(1, 8080), { maxLength: 2 }),
      notDestinationPorts: fc.array(fc.constantFrom(1, 8080), { maxLength: 2 }),
    });
    const rules = fc.array(fc.array(fc.array(match, { maxLength: 3 }), { maxLength: 3 }), {
      maxLength: 3,
    });
    fc.assert(
      fc.property(rules, (wire) => {
        const holds = (m: { destinationPorts: number[]; notDestinationPorts: number[] }) =>
          m.destinationPorts.length + m.notDestinationPorts.length > 0 &&
          (m.destinationPorts.length === 0 || m.destinationPorts.includes(8080)) &&
          !m.notDestinationPorts.includes(8080);
        const expected = wire.some((clauses) =>
          clauses.every((matches) => matches.length === 0 || matches.some(holds)),
        );
        expect(policyMatches(policy(wire), plain)).toBe(expected);
      }),
    );
  });

  it.each([
    [{ scope: 9 as Scope }, "unknown scope 9"],
    [{ action: 9 as Action }, "unknown action 9"],
  ])("rejects %o", (changes, reason) => {
    expect(() => policy([], changes)).toThrow(reason);
  });
});
