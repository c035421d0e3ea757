import { describe, expect, it } from "vitest";
import { expand, nameCandidates, podSearchDomains, trimDomain, wildcardsOf } from "./names.ts";

const scope = {
  clientNamespace: "ns1",
  clusterDomain: "cluster.local",
  searchDomains: podSearchDomains("ns1", "cluster.local"),
};

describe("what Kubernetes may mean by a name", () => {
  it.each<[string, string[]]>([
    ["name", ["name.ns1.svc.cluster.local"]],
    ["name.ns2", ["name.ns2.svc.cluster.local", "name.ns2.ns1.svc.cluster.local"]],
    ["name.ns2.svc", ["name.ns2.svc.cluster.local", "name.ns2.svc.svc.cluster.local"]],
    ["name.ns2.not-svc", ["name.ns2.not-svc.svc.cluster.local"]],
    ["pod.sub-domain.ns.svc", ["pod.sub-domain.ns.svc.cluster.local"]],
    ["pod.sub-domain.ns.not-svc", []],
    ["name.ns2.svc.cluster", []],
    ["name.ns2.svc.cluster.local", []],
    ["www.google.com", ["www.google.com.svc.cluster.local"]],
  ])("%s: %j", (name, expanded) => expect(expand(name, scope)).toEqual([name, ...expanded]));
});

describe("wildcards", () => {
  it.each<[string, string[]]>([
    ["svc1", []],
    ["svc1.local", ["*.local"]],
    [
      "svc1.ns1.svc.cluster.local",
      ["*.ns1.svc.cluster.local", "*.svc.cluster.local", "*.cluster.local", "*.local"],
    ],
  ])("of %s: %j", (name, wildcards) => expect(wildcardsOf(name)).toEqual(wildcards));
});

describe("a name without its domain", () => {
  it.each<[string, string, string | undefined]>([
    ["a.b.c", "b.c", "a"],
    ["a.b.c", "c", "a.b"],
    ["a.b.c", "a.b.c", undefined],
    ["a.b.c", "x", undefined],
    ["a.xb.c", "b.c", undefined],
    ["a", "a.b", undefined],
    ["a.b", "", undefined],
  ])("%s in %s: %s", (name, domain, rest) => expect(trimDomain(name, domain)).toBe(rest));
});

it("tries all wildcards of one candidate before the next", () => {
  const names = [...nameCandidates("a.b", scope)].map(({ name }) => name);
  expect(names.slice(0, 3)).toEqual(["a.b", "*.b", "a.b.svc.cluster.local"]);
});

it("strips each search domain of the list that fits, in its order", () => {
  const stripped = [...nameCandidates("x.ns1.svc.cluster.local", scope)].flatMap(
    ({ strippedTo }) => strippedTo ?? [],
  );
  expect([...new Set(stripped)]).toEqual(["x", "x.ns1", "x.ns1.svc"]);
});
