import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { describe, expect, it } from "vitest";
import { createRoot, signingRoot, signWorkload } from "./issuer.ts";
import { generateKeyPair, issueCertificate } from "./x509.ts";

const NOW_MS = 1_790_000_000_000;
const MINUTE_MS = 60_000;
const identity = { trustDomain: "td", namespace: "ns", serviceAccount: "sa" };
const root = signingRoot(createRoot("td", NOW_MS));

function leaf(ttlMs = 60 * MINUTE_MS): X509Certificate {
  const { publicKey } = generateKeyPair();
  const [pem] = signWorkload(root, { publicKey, identity, ttlMs, nowMs: NOW_MS });
  return new X509Certificate(pem!);
}

describe("a root", () => {
  const certificate = new X509Certificate(root.certificatePem);

  it("is a CA that signed itself", () => {
    expect(certificate.ca).toBe(true);
    expect(certificate.checkIssued(certificate)).toBe(true);
    expect(certificate.verify(certificate.publicKey)).toBe(true);
    expect(certificate.subject).toBe("O=td");
  });

  it("renewed with its key is trusted by what the old one signed", () => {
    const first = createRoot("td", NOW_MS);
    const second = createRoot("td", NOW_MS + MINUTE_MS, first.keyPem);
    expect(new X509Certificate(second.certificatePem).publicKey).toEqual(
      new X509Certificate(first.certificatePem).publicKey,
    );
  });
});

describe("a workload's certificate", () => {
  it("is signed by the root for one identity, for both ends of a connection", () => {
    const certificate = leaf();
    const issuer = new X509Certificate(root.certificatePem);
    expect(certificate.verify(issuer.publicKey)).toBe(true);
    expect(certificate.checkIssued(issuer)).toBe(true);
    expect(certificate.ca).toBe(false);
    expect(certificate.subjectAltName).toBe("URI:spiffe://td/ns/ns/sa/sa");
    expect(certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
  });

  it("lives as long as asked, from a little before now", () => {
    const { validFromDate, validToDate } = leaf();
    expect(validFromDate.getTime()).toBeLessThan(NOW_MS);
    expect(validToDate.getTime()).toBe(NOW_MS + 60 * MINUTE_MS);
  });

  it("never outlives its issuer", () => {
    const end = new X509Certificate(root.certificatePem).validToDate.getTime();
    expect(leaf(end - NOW_MS + MINUTE_MS).validToDate.getTime()).toBeLessThanOrEqual(end);
  });

  it("has a positive serial number that no other has", () => {
    const numbers = Array.from({ length: 20 }, () => leaf().serialNumber);
    expect(new Set(numbers).size).toBe(20);
    for (const number of numbers) expect(parseInt(number.slice(0, 2), 16)).toBeLessThan(0x80);
  });
});

describe("an issuer's key", () => {
  it("may be RSA", () => {
    const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const request = {
      publicKey,
      organization: "td",
      notBeforeMs: NOW_MS,
      notAfterMs: NOW_MS + MINUTE_MS,
      isCa: true,
    };
    const certificate = new X509Certificate(issueCertificate(request, { selfKey: privateKey }));
    expect(certificate.verify(publicKey)).toBe(true);
  });

  it("of another kind is refused with what would do", () => {
    const { publicKey, privateKey } = generateKeyPairSync("ed25519");
    const request = { publicKey, notBeforeMs: NOW_MS, notAfterMs: NOW_MS, isCa: true };
    expect(() => issueCertificate(request, { selfKey: privateKey })).toThrow(/use EC P-256 or RSA/);
  });
});
