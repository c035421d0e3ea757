import { describe, expect, it } from "vitest";
import type { Resource } from "@ambit/api/resources/kinds.ts";
import { objectYaml, parse } from "../testing/mesh-harness.ts";
import { type Condition, type ObjectStatus, withStatus } from "./object-status.ts";

const NOW_MS = Date.parse("2026-01-02T03:04:05.000Z");
const [policy] = parse(objectYaml("AuthorizationPolicy", "p", "{ rules: [{}] }"));
const [entry] = parse(objectYaml("ServiceEntry", "e", "{ hosts: [h.test], resolution: DNS }"));

const accepted: Condition = {
  type: "ZtunnelAccepted",
  status: "True",
  reason: "Accepted",
  message: "attached to ztunnel",
};
const about = (...conditions: Condition[]): ObjectStatus => ({
  key: { kind: "AuthorizationPolicy", namespace: "shop", name: "p" },
  conditions,
});
const ofEntry = (addresses: ObjectStatus["addresses"] = []): ObjectStatus => ({
  key: { kind: "ServiceEntry", namespace: "shop", name: "e" },
  conditions: [],
  addresses,
});
const statusOf = (resource: Resource) => (resource as { status?: unknown }).status;

describe("a status", () => {
  it("is added with its time", () => {
    expect(statusOf(withStatus(policy!, about(accepted), NOW_MS))).toEqual({
      conditions: [{ ...accepted, lastTransitionTime: "2026-01-02T03:04:05.000Z" }],
    });
  });

  it("that is there already leaves the object as it is", () => {
    const written = withStatus(policy!, about(accepted), NOW_MS);
    expect(withStatus(written, about(accepted), NOW_MS + 1)).toBe(written);
    expect(withStatus(policy!, about(), NOW_MS)).toBe(policy);
    expect(withStatus(entry!, ofEntry(), NOW_MS)).toBe(entry);
  });

  it.each<[string, Partial<Condition>]>([
    ["outcome", { status: "False" }],
    ["reason", { reason: "UnsupportedValue" }],
    ["message", { message: "other" }],
  ])("with another %s replaces the old one and its time", (_, change) => {
    const written = withStatus(policy!, about(accepted), NOW_MS);
    const changed = withStatus(written, about({ ...accepted, ...change }), NOW_MS + 1000);
    expect(statusOf(changed)).toEqual({
      conditions: [{ ...accepted, ...change, lastTransitionTime: "2026-01-02T03:04:06.000Z" }],
    });
  });

  it("leaves what others wrote, and takes ours away when it no longer applies", () => {
    const theirs = { type: "Programmed", status: "True" as const };
    const before = { ...policy, status: { conditions: [theirs], extra: 1 } } as unknown as Resource;
    const both = withStatus(before, about(accepted), NOW_MS);
    expect(statusOf(both)).toMatchObject({ conditions: [theirs, accepted], extra: 1 });
    expect(statusOf(withStatus(both, about(), NOW_MS))).toEqual({ conditions: [theirs], extra: 1 });
  });

  it("of a ServiceEntry has its addresses, which go when there are none any more", () => {
    const addresses = [{ value: "240.240.0.1", host: "h.test" }];
    const written = withStatus(entry!, ofEntry(addresses), NOW_MS);
    expect(statusOf(written)).toEqual({ addresses });
    expect(withStatus(written, ofEntry(addresses), NOW_MS)).toBe(written);
    expect(statusOf(withStatus(written, ofEntry(), NOW_MS))).toEqual({ addresses: [] });
  });

  it("says of which generation it is", () => {
    const of = (generation: number) => ({ ...about(accepted), generation });
    const first = withStatus(policy!, of(1), NOW_MS);
    expect(statusOf(first)).toMatchObject({ conditions: [{ observedGeneration: 1 }] });
    expect(withStatus(first, of(1), NOW_MS)).toBe(first);
    expect(statusOf(withStatus(first, of(2), NOW_MS))).toMatchObject({
      conditions: [{ observedGeneration: 2 }],
    });
  });

  it("leaves what was known of its generation until it is known again", () => {
    const enforcement = { kind: "proxies", where: "here" } as const;
    const applied: Condition = {
      type: "ambit.io/Applied",
      status: "True",
      reason: "Acknowledged",
      message: "in force",
    };
    const of = (generation: number, ...conditions: Condition[]) => ({
      ...about(accepted, ...conditions),
      generation,
      enforcement,
    });
    const known = withStatus(policy!, of(1, applied), NOW_MS);
    expect(withStatus(known, of(1), NOW_MS)).toBe(known);
    const next = withStatus(known, of(2), NOW_MS) as { status?: { conditions?: unknown[] } };
    expect(next.status?.conditions).toMatchObject([accepted]);
    expect(statusOf(withStatus(known, about(accepted), NOW_MS))).toMatchObject({
      conditions: [{ type: "ZtunnelAccepted" }],
    });
  });

  it("is not for kinds that we say nothing about", () => {
    const [account] = parse(objectYaml("ServiceAccount", "s", "{}"));
    expect(withStatus(account!, about(accepted), NOW_MS)).toBe(account);
  });
});
