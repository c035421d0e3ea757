import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createCsr, parseCsr } from "./csr.ts";
import { children, fromDer, toDer } from "./der.ts";
import { pemToDer, toPem } from "./pem.ts";

const LABEL = "CERTIFICATE REQUEST";
const identity = { trustDomain: "cluster.local", namespace: "ns", serviceAccount: "sa" };

/** A CSR with one byte of its bytes changed. */
function withFlippedByte(csrPem: string, at: number): string {
  const der = Buffer.from(pemToDer(csrPem, LABEL)!);
  der[at % der.length]! ^= 0x01;
  return toPem(LABEL, der);
}

describe("a certificate signing request", () => {
  it("proves its key: the key that signed it is the one it asks for", () => {
    const { csrPem } = createCsr(identity);
    expect(parseCsr(csrPem).asymmetricKeyDetails).toEqual({ namedCurve: "prime256v1" });
  });

  it("has an empty subject and one critical SAN with the identity, as Istio's have", () => {
    const [info] = children(fromDer(pemToDer(createCsr(identity).csrPem, LABEL)!));
    const [, subject, , attributes] = children(info);
    expect(toDer(subject!)).toEqual(Buffer.from([0x30, 0x00]));
    const text = toDer(attributes!).toString("latin1");
    expect(text).toContain("spiffe://cluster.local/ns/ns/sa/sa");
    expect(text).toContain("\x06\x03\x55\x1d\x11\x01\x01\xff"); // subjectAltName, critical
  });

  it("is made with a fresh key each time", () => {
    expect(createCsr(identity).keyPem).not.toBe(createCsr(identity).keyPem);
  });

  it.each<[string, string, RegExp]>([
    ["no PEM block", "hello", /no CERTIFICATE REQUEST block/],
    ["an empty block", toPem(LABEL, Buffer.alloc(0)), /no CERTIFICATE REQUEST block/],
    ["another kind of block", toPem("CERTIFICATE", Buffer.from([0x30, 0])), /no CERTIFICATE/],
    ["bytes that are no request", toPem(LABEL, Buffer.from([0x30, 0])), /not a PKCS#10 request/],
    ["one byte more than the limit", toPem(LABEL, Buffer.alloc(16_385)), /larger than 16384/],
    ["as many bytes as the limit", toPem(LABEL, Buffer.alloc(16_384)), /not a PKCS#10 request/],
  ])("with %s is refused", (_, pem, reason) => {
    expect(() => parseCsr(pem)).toThrow(reason);
  });

  it("whose signature is another key's is refused", () => {
    const [infoA] = children(fromDer(pemToDer(createCsr(identity).csrPem, LABEL)!));
    const [, algorithm, signature] = children(
      fromDer(pemToDer(createCsr(identity).csrPem, LABEL)!),
    );
    const body = Buffer.concat([infoA!, algorithm!, signature!].map((part) => toDer(part)));
    const mixed = Buffer.concat([Buffer.from([0x30, 0x82, body.length >> 8, body.length]), body]);
    expect(() => parseCsr(toPem(LABEL, mixed))).toThrow(/signature does not match/);
  });

  it("is refused after any change of one byte, or means the same key still", () => {
    const { csrPem } = createCsr(identity);
    const key = parseCsr(csrPem);
    fc.assert(
      fc.property(fc.nat(1_000), (at) => {
        let changed;
        try {
          changed = parseCsr(withFlippedByte(csrPem, at));
        } catch (error) {
          return error instanceof Error && error.message.startsWith("CSR: ");
        }
        return changed.equals(key);
      }),
    );
  });
});
