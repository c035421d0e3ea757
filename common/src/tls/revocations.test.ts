import { X509Certificate } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ListExtension, NOTHING } from "../testing/revocation-list-issuer.ts";
import { TestCa } from "../testing/test-ca.ts";
import { certificationPath, PATH_LENGTH_MAX, pathOfOwn } from "./certification-path.ts";
import { contextText, sequence } from "./der.ts";
import { pemToDer } from "./pem.ts";
import { CRL_FILE_BYTES_MAX, parseRevocationLists } from "./revocation-list.ts";
import { Revocations } from "./revocations.ts";

const root = new TestCa("root");
const intermediate = new TestCa("intermediate", root);
const lower = new TestCa("lower", intermediate);
const identity = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "client" };
const leaf = intermediate.issue(identity);
const deepLeaf = lower.issue(identity);
const serialOf = ({ leafPem }: { leafPem: string }) => new X509Certificate(leafPem).serialNumber;

const lists = (...pems: string[]) => parseRevocationLists(Buffer.from(pems.join("")));

function objection(certificate: typeof leaf, ...pems: string[]): string | undefined {
  const revocations = new Revocations();
  revocations.replace(lists(...pems));
  return revocations.objectionTo(pathOfOwn(certificate)!);
}

describe("what a revocation list takes back", () => {
  it("a leaf, by its issuer", () => {
    expect(objection(leaf, intermediate.revoke(serialOf(leaf)))).toBe(
      `certificate revoked by CRL (serial ${serialOf(leaf).toLowerCase()})`,
    );
  });

  it.each<[string, typeof leaf, TestCa, TestCa]>([
    ["an intermediate, by the root", leaf, root, intermediate],
    ["an intermediate above another", deepLeaf, root, intermediate],
    ["an intermediate below another", deepLeaf, intermediate, lower],
  ])("%s", (_, certificate, issuer, revoked) => {
    const text = objection(certificate, issuer.revoke(revoked.serialNumber));
    expect(text).toContain("intermediate certificate revoked");
  });

  it("one of several lists in one file is enough", () => {
    const harmless = [root.revoke(), intermediate.revoke("01", "02"), lower.revoke()];
    expect(objection(leaf, ...harmless)).toBeUndefined();
    expect(objection(leaf, ...harmless, intermediate.revoke(serialOf(leaf)))).toBeDefined();
  });

  it("a list that has expired still counts", () => {
    const longAgoMs = Date.now() - 365 * 86_400_000;
    const old = intermediate.list({ serialNumbers: [serialOf(leaf)], thisUpdateMs: longAgoMs });
    expect(objection(leaf, old)).toBeDefined();
  });

  it("an empty list, an empty file, or other PEM blocks: nothing", () => {
    expect(objection(leaf, intermediate.revoke())).toBeUndefined();
    expect(objection(leaf, "")).toBeUndefined();
    expect(objection(leaf, root.rootPem)).toBeUndefined();
  });

  it("nothing when the serial number is another issuer's", () => {
    expect(objection(leaf, root.revoke(serialOf(leaf)))).toBeUndefined();
    expect(objection(leaf, new TestCa("other").revoke(serialOf(leaf)))).toBeUndefined();
  });

  it("nothing when another CA of the same name signed it", () => {
    const impostor = new TestCa("intermediate", root);
    expect(objection(leaf, impostor.revoke(serialOf(leaf)))).toBeUndefined();
    const both = [impostor.revoke(serialOf(leaf)), intermediate.revoke(serialOf(leaf))];
    expect(objection(leaf, ...both)).toBeDefined();
  });
});

describe("the path to a root", () => {
  const parse = (pem: string) => new X509Certificate(pem);
  const roots = [parse(new TestCa("unrelated").rootPem), parse(root.rootPem)];
  const [lowerPem, intermediatePem] = deepLeaf.intermediatesPem.map(parse);

  it("is found whatever the order of what was presented", () => {
    const path = certificationPath(parse(deepLeaf.leafPem), [intermediatePem!, lowerPem!], roots);
    expect(path).toHaveLength(3);
  });

  it("leaves out what does not belong to it, so that a revoked stranger does no harm", () => {
    const stranger = new TestCa("stranger", root);
    const presented = [parse(stranger.issue(identity).intermediatesPem[0]!), intermediatePem!];
    const path = certificationPath(parse(leaf.leafPem), presented, roots)!;
    expect(path).toHaveLength(2);
    const revocations = new Revocations();
    revocations.replace(lists(root.revoke(stranger.serialNumber)));
    expect(revocations.objectionTo(path)).toBeUndefined();
  });

  it("is followed so far and no further", () => {
    let ca = root;
    for (let i = 1; i < PATH_LENGTH_MAX; i++) ca = new TestCa(`level-${i}`, ca);
    expect(pathOfOwn(ca.issue(identity))).toHaveLength(PATH_LENGTH_MAX);
    expect(pathOfOwn(new TestCa("one more", ca).issue(identity))).toBeUndefined();
  });

  it("is unknown without the intermediate, without the root, or in a circle", () => {
    expect(certificationPath(parse(leaf.leafPem), [], roots)).toBeUndefined();
    expect(certificationPath(parse(leaf.leafPem), [intermediatePem!], [])).toBeUndefined();
    const presented = [intermediatePem!, roots[1]!];
    expect(certificationPath(parse(leaf.leafPem), presented, [])).toBeUndefined();
  });
});

const extension = (oid: string, critical: boolean, value = NOTHING): ListExtension => ({
  oid,
  critical,
  value,
});
const onlyUsers = sequence(contextText(1, "\xff"));
const indirect = sequence(contextText(4, "\xff"));

describe("a file of revocation lists", () => {
  it("may be one list in DER", () => {
    const der = pemToDer(intermediate.revoke("0a", "ff01"), "X509 CRL")!;
    const [list] = parseRevocationLists(der);
    expect([...list!.serials]).toEqual(["a", "ff01"]);
  });

  it.each<[string, readonly ListExtension[]]>([
    ["an extension that is not critical", [extension("1.2.3.4", false)]],
    ["a distribution point that narrows it", [extension("2.5.29.28", true, onlyUsers)]],
  ])("may have %s", (_, extensions) => {
    const [list] = lists(root.list({ serialNumbers: ["01"], extensions }));
    expect([...list!.serials]).toEqual(["1"]);
  });

  it.each<[string, readonly ListExtension[], string]>([
    ["an unknown critical extension", [extension("1.2.3.4", true)], "critical extension"],
    ["a delta", [extension("2.5.29.27", true)], "critical extension"],
    ["an indirect list", [extension("2.5.29.28", true, indirect)], "indirect lists"],
  ])("is refused with %s", (_, extensions, reason) => {
    const pem = root.list({ serialNumbers: ["01"], extensions });
    expect(() => lists(root.revoke(), pem)).toThrow(`list 2: `);
    expect(() => lists(pem)).toThrow(reason);
  });

  it("is refused when an entry names another issuer", () => {
    const entryExtensions = [extension("2.5.29.29", true)];
    const pem = root.list({ serialNumbers: ["01"], entryExtensions });
    expect(() => lists(pem)).toThrow("indirect lists");
  });

  it.each([
    ["text", "not a list"],
    ["a block without end", intermediate.revoke().replace("-----END X509 CRL-----", "")],
    ["a block of something else", intermediate.revoke().replace(/\n\w{8}/, "\nAAAAAAAA")],
  ])("is refused when it is %s", (_, text) => {
    expect(() => parseRevocationLists(Buffer.from(text))).toThrow(Error);
  });

  it("is refused unread when it is larger than any list is", () => {
    const file = Buffer.alloc(CRL_FILE_BYTES_MAX + 1);
    expect(() => parseRevocationLists(file)).toThrow("larger than");
    expect(() => parseRevocationLists(file.subarray(1))).toThrow("list 1: ");
  });

  it("is refused when any byte too few or too many is in it", () => {
    const der = pemToDer(intermediate.revoke("01", "02"), "X509 CRL")!;
    fc.assert(
      fc.property(fc.integer({ min: 1, max: der.length - 1 }), (length) => {
        expect(() => parseRevocationLists(der.subarray(0, length))).toThrow();
      }),
    );
    expect(() => parseRevocationLists(Buffer.concat([der, bytes(0)]))).toThrow();
  });

  it("is not believed when its content was changed after it was signed", () => {
    const der = pemToDer(intermediate.revoke(serialOf(leaf)), "X509 CRL")!;
    const at = der.indexOf(Buffer.from(serialOf(leaf), "hex"));
    der[at + 1]! ^= 1;
    const [list] = parseRevocationLists(der);
    expect(list!.isSignedBy(pathOfOwn(leaf)![0]!.issuerKey)).toBe(false);
  });
});

const bytes = (...values: number[]) => Uint8Array.from(values);
