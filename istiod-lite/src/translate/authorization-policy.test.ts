import { describe, expect, it } from "vitest";
import { MeshHarness as Harness, objectYaml } from "../testing/mesh-harness.ts";

/** What becomes of a policy with this spec, in words and on the wire. */
function become(spec: string) {
  const mesh = new Harness().apply(objectYaml("AuthorizationPolicy", "p", spec));
  const status = mesh.statuses.get("AuthorizationPolicy/shop/p")!;
  const [{ reason, message } = { reason: "", message: "" }] = status.conditions;
  const rules = mesh.policy("shop/p")?.rules ?? [];
  const ports = rules.map(({ clauses }) =>
    clauses.map(({ matches }) =>
      matches.map(({ destinationPorts, notDestinationPorts }) => [
        ...destinationPorts,
        ...notDestinationPorts.map((port) => -port),
      ]),
    ),
  );
  return { reason, message, ports, enforcement: status.enforcement?.kind };
}

const WEB = "from: [{ source: { principals: [td/ns/a/sa/web] } }]";

describe("values that are no ports or addresses", () => {
  it.each([
    [
      "one of several ports",
      "{ rules: [{ to: [{ operation: { ports: ['80', http] } }] }] }",
      [[[[80]]]],
    ],
    [
      "the only port, beside who may come",
      `{ rules: [{ ${WEB}, to: [{ operation: { ports: [http] } }] }, { ${WEB} }] }`,
      [[[[]]]],
    ],
    [
      "one of several ports that may not be",
      "{ rules: [{ to: [{ operation: { notPorts: ['80', http] } }] }] }",
      [],
    ],
    ["an address", "{ rules: [{ from: [{ source: { ipBlocks: [10.0.0.0/33] } }] }] }", []],
    [
      "an address that may not be",
      "{ rules: [{ from: [{ source: { notIpBlocks: [home] } }] }] }",
      [],
    ],
    [
      "a condition's port",
      "{ rules: [{ when: [{ key: destination.port, values: ['65536'] }] }] }",
      [],
    ],
    ["a condition's address", "{ rules: [{ when: [{ key: source.ip, notValues: [x] }] }] }", []],
    [
      "a condition's own address",
      "{ rules: [{ when: [{ key: destination.ip, values: [x] }] }] }",
      [],
    ],
  ])("never make an ALLOW policy let more through: %s", (_what, spec, ports) => {
    const found = become(spec);
    expect(found.ports).toEqual(ports);
    expect([found.reason, found.enforcement]).toEqual(["UnsupportedValue", "proxies"]);
    expect(found.message).toContain("These values are no ports or addresses: ");
  });

  it("make a DENY policy stop more rather than less", () => {
    const found = become(
      `{ action: DENY, rules: [{ ${WEB}, to: [{ operation: { ports: [http] } }] }] }`,
    );
    expect(found.ports).toEqual([[[[]]]]);
    expect(found.message).toBe(
      'These values are no ports or addresses: ports "http". This DENY policy is enforced without them: it denies more than it says.',
    );
  });

  it("leave nothing of a DENY rule that says nothing else", () => {
    const found = become("{ action: DENY, rules: [{ to: [{ operation: { ports: [http] } }] }] }");
    expect(found.enforcement).toBe("nobody");
    expect(found.message).toContain("it has no effect");
  });

  it("are told apart from HTTP attributes, and both are named", () => {
    const spec = "{ rules: [{ to: [{ operation: { methods: [GET], ports: [a, b] } }] }] }";
    expect(become(spec).message).toMatch(/found: methods\).*ports "a", ports "b"/);
  });
});

describe("trust domains of a source", () => {
  it.each(["trustDomains", "notTrustDomains"])(
    "as %s are not heeded, which the status says",
    (field) => {
      const spec = `{ rules: [{ from: [{ source: { principals: [td/ns/a/sa/web], ${field}: [x] } }] }] }`;
      const found = become(spec);
      expect([found.message, found.ports.length]).toEqual([`ztunnel does not heed ${field}.`, 1]);
    },
  );
});
