import { describe, expect, it } from "vitest";
import { parseMeshConfig, visibilityIn } from "./mesh-config.ts";

describe("the mesh configuration", () => {
  it("is nothing when nothing is given", () => {
    expect(Object.values(parseMeshConfig({})).filter((value) => value !== undefined)).toEqual([]);
  });

  it("takes from Istio's MeshConfig what concerns it, and lets the rest be", () => {
    const mesh = `
rootNamespace: mesh-root
trustDomain: example.test
trustDomainAliases: [old.test]
accessLogFile: /dev/stdout
defaultConfig: { discoveryAddress: istiod:15012 }
discoverySelectors:
- matchLabels: { mesh: "on" }`;
    expect(parseMeshConfig({ mesh, meshNetworks: "networks: {}" })).toMatchObject({
      rootNamespace: "mesh-root",
      trustDomain: "example.test",
      trustDomainAliases: ["old.test"],
      discoverySelectors: [{ matchLabels: { mesh: "on" } }],
    });
  });

  it("has what is ours under a key of its own", () => {
    expect(parseMeshConfig({ ambit: "sameNode: hbone" }).sameNode).toBe("hbone");
  });

  it.each([
    ["mesh", "rootNamespace: Not_A_Name", "key mesh: rootNamespace must be lower-case"],
    ["mesh", "trustDomain: 7", "key mesh: trustDomain "],
    ["mesh", "discoverySelectors: [{ labels: {} }]", "key mesh: discoverySelectors[0]"],
    ["mesh", "a: [", "key mesh: line 1: "],
    ["mesh", "- list", "key mesh: "],
    ["ambit", "sameNode: magic", "key ambit: sameNode "],
    ["ambit", "sameNodes: local", "key ambit: "],
  ])("refuses in key %s: %s", (key, text, message) => {
    expect(() => parseMeshConfig({ [key]: text })).toThrow(message);
  });
});

describe("the visibility of ServiceEntries", () => {
  const read = (text: string) =>
    parseMeshConfig({ mesh: `serviceEntryVisibility: ${text}` }).serviceEntryVisibility;
  const team = "matchingRules: [{ namespaceSelector: { matchLabels: { team: a } } }]";

  it.each([
    ["nothing said", "{}", {}, "PUBLIC"],
    ["a default", "{ defaultVisibility: NAMESPACE }", {}, "NAMESPACE"],
    ["a policy that fits", `{ policies: [{ visibility: NONE, ${team} }] }`, { team: "a" }, "NONE"],
    [
      "a policy that does not",
      `{ defaultVisibility: NAMESPACE, policies: [{ visibility: NONE, ${team} }] }`,
      { team: "b" },
      "NAMESPACE",
    ],
    [
      "the first of two that fit",
      `{ policies: [{ visibility: PUBLIC, ${team} }, { visibility: NONE }] }`,
      { team: "a" },
      "PUBLIC",
    ],
    ["a policy without rules, which fits all", "{ policies: [{ visibility: NONE }] }", {}, "NONE"],
    [
      "a rule nobody knows, which fits nothing",
      "{ policies: [{ visibility: NONE, matchingRules: [{ hostnameSuffix: x }] }] }",
      {},
      "PUBLIC",
    ],
  ])("by %s", (_what, text, labels, expected) => {
    expect(visibilityIn(read(text), labels as Record<string, string>)).toBe(expected);
  });

  it("is public when the mesh says nothing of it", () => {
    expect(visibilityIn(undefined, {})).toBe("PUBLIC");
  });
});
