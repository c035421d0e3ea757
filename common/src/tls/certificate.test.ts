import { X509Certificate } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TestCa } from "../testing/test-ca.ts";
import { certificateFromChain, hasIdentity, peerIdentities, uriSans } from "./certificate.ts";
import { parseSpiffeId, spiffeId, type SpiffeId } from "./identity.ts";
import type { SubjectAltName } from "./x509.ts";

const identity = { trustDomain: "cluster.local", namespace: "ns", serviceAccount: "sa" };
const ca = new TestCa();
const other = new TestCa("other");
const { leafPem, keyPem } = ca.issue(identity);

describe("a CA's answer", () => {
  it("is a leaf, intermediates, and last all roots", () => {
    const bundle = ca.rootPem + other.rootPem;
    const found = certificateFromChain(identity, keyPem, [leafPem, other.rootPem, bundle]);
    expect(found).toMatchObject({
      leafPem,
      intermediatesPem: [other.rootPem],
      rootsPem: [ca.rootPem, other.rootPem],
    });
    expect(found.serialNumber).toMatch(/^[0-9a-f]{32}$/);
    expect(found.notBeforeMs).toBeLessThan(found.notAfterMs);
  });

  it.each<[string, string[], RegExp]>([
    ["nothing", [], /chain of 0/],
    ["a leaf without a root", [leafPem], /chain of 1/],
    ["a root bundle without a certificate", [leafPem, "none"], /no root certificate/],
    [
      "a certificate of someone else",
      [ca.issue({ ...identity, serviceAccount: "x" }).leafPem, ca.rootPem],
      /is for .*sa\/x, not for .*sa\/sa/,
    ],
    ["a certificate of nobody", [ca.rootPem, ca.rootPem], /for nobody/],
  ])("of %s is refused", (_, chain, reason) => {
    expect(() => certificateFromChain(identity, keyPem, chain)).toThrow(reason);
  });
});

describe("a peer's identities", () => {
  const withSans = (...sans: SubjectAltName[]) =>
    new X509Certificate(ca.issue(identity, { sans }).leafPem);
  const uri = (value: string): SubjectAltName => ({ type: "uri", value });

  it("are its SPIFFE URIs in order; other names are not looked at", () => {
    const certificate = withSans(
      { type: "dns", value: "web.example" },
      uri("spiffe://td/ns/a/sa/b"),
      uri("https://example.com"),
      uri("spiffe://td/ns/c/sa/d"),
      uri("spiffe://td/ns/c"),
    );
    expect(peerIdentities(certificate).map(spiffeId)).toEqual([
      "spiffe://td/ns/a/sa/b",
      "spiffe://td/ns/c/sa/d",
    ]);
    expect(uriSans(certificate)).toHaveLength(4);
  });

  it.each(["a, URI:spiffe://td/ns/evil/sa/evil", 'a", URI:spiffe://td/ns/evil/sa/evil', 'a\\", b'])(
    "cannot be smuggled in through a name: %s",
    (value) => {
      expect(peerIdentities(withSans({ type: "dns", value }))).toEqual([]);
      expect(uriSans(withSans(uri(value)))).toEqual([value]);
    },
  );

  it("survive the way through a certificate, whatever they are", () => {
    const part = fc.stringMatching(/^[a-z0-9.-]{1,20}$/);
    fc.assert(
      fc.property(part, part, part, (trustDomain, namespace, serviceAccount) => {
        const wanted = { trustDomain, namespace, serviceAccount };
        const [found] = peerIdentities(new X509Certificate(ca.issue(wanted).leafPem));
        expect(found).toEqual(wanted);
      }),
      { numRuns: 20 },
    );
  });

  it("match when one of them is allowed", () => {
    const allowed = ["spiffe://td/ns/a/sa/b" as SpiffeId];
    expect(hasIdentity([{ trustDomain: "td", namespace: "a", serviceAccount: "b" }], allowed)).toBe(
      true,
    );
    expect(hasIdentity([{ trustDomain: "td", namespace: "a", serviceAccount: "c" }], allowed)).toBe(
      false,
    );
    expect(hasIdentity([], allowed)).toBe(false);
  });
});

describe("a SPIFFE identity", () => {
  it("reads back what it wrote", () => {
    const part = fc.stringMatching(/^[^/]{1,20}$/);
    fc.assert(
      fc.property(part, part, part, (trustDomain, namespace, serviceAccount) => {
        const given = { trustDomain, namespace, serviceAccount };
        expect(parseSpiffeId(spiffeId(given))).toEqual(given);
      }),
    );
  });

  it.each([
    "",
    "spiffe://",
    "http://td/ns/a/sa/b",
    "SPIFFE://td/ns/a/sa/b",
    "spiffe://td/ns/a",
    "spiffe://td/ns/a/sa/",
    "spiffe:///ns/a/sa/b",
    "spiffe://td/ns//sa/b",
    "spiffe://td/NS/a/sa/b",
    "spiffe://td/ns/a/sa/b/",
    "spiffe://td/ns/a/sa/b/c",
  ])("is not %j", (text) => {
    expect(parseSpiffeId(text)).toBeUndefined();
  });
});
