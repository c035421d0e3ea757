import { X509Certificate } from "node:crypto";
import { describe, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { createCsr } from "@ambit/common/tls/csr.ts";
import { createRoot, signingRoot } from "@ambit/common/tls/issuer.ts";
import { CertificateAuthority, LIFETIME_RULES, SigningError } from "./authority.ts";

const identity = { trustDomain: "td", namespace: "ns", serviceAccount: "sa" };
const clock = new FakeClock();
const newRoot = () => signingRoot(createRoot("td", clock.nowMs()));
const authority = new CertificateAuthority(newRoot(), clock);
const { ttlDefaultSeconds, ttlSecondsMax } = LIFETIME_RULES;

function lifeSeconds(by: CertificateAuthority, ttlSeconds: number): number {
  const [leaf] = by.sign(createCsr(identity).csrPem, identity, ttlSeconds);
  return (new X509Certificate(leaf!).validToDate.getTime() - clock.nowMs()) / 1000;
}

describe("signing", () => {
  it.each([
    ["the default for 0", 0, ttlDefaultSeconds],
    ["the default for less", -1, ttlDefaultSeconds],
    ["what was asked", 60, 60],
    ["the maximum", ttlSecondsMax, ttlSecondsMax],
  ])("gives %s as its life", (_, asked, given) => {
    expect(lifeSeconds(authority, asked)).toBe(given);
  });

  it("refuses a longer life than the maximum, and says so", () => {
    expect(() => lifeSeconds(authority, ttlSecondsMax + 1)).toThrow(
      new SigningError("requested TTL 7776001 s is greater than the maximum of 7776000 s"),
    );
  });

  it("follows the lives it is configured with", () => {
    const brief = new CertificateAuthority(newRoot(), clock, {
      ttlDefaultSeconds: 30,
      ttlSecondsMax: 60,
    });
    expect(lifeSeconds(brief, 0)).toBe(30);
    expect(lifeSeconds(brief, 60)).toBe(60);
    expect(() => lifeSeconds(brief, 61)).toThrow("maximum of 60 s");
  });

  it("never outlives the certificate it signs with", async () => {
    const aging = new FakeClock();
    const old = new CertificateAuthority(signingRoot(createRoot("td", aging.nowMs())), aging);
    const end = new X509Certificate(old.rootBundlePem).validToDate.getTime();
    await aging.advance(end - aging.nowMs() - 60_000);
    const [leaf] = old.sign(createCsr(identity).csrPem, identity, 3600);
    expect(new X509Certificate(leaf!).validToDate.getTime()).toBe(end);
  });

  it("is valid since two minutes: clocks differ", () => {
    const [leaf] = authority.sign(createCsr(identity).csrPem, identity, 60);
    expect(new X509Certificate(leaf!).validFromDate.getTime()).toBe(clock.nowMs() - 120_000);
  });

  it("ignores whom the request is for: the caller decides that", () => {
    const { csrPem } = createCsr({ ...identity, serviceAccount: "someone-else" });
    const [leaf] = authority.sign(csrPem, identity, 60);
    expect(new X509Certificate(leaf!).subjectAltName).toBe("URI:spiffe://td/ns/ns/sa/sa");
  });

  it.each(["hello", "", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])("refuses %j", (csr) => {
    expect(() => authority.sign(csr, identity, 60)).toThrow(SigningError);
  });
});

describe("a replaced signing certificate", () => {
  it("signs from then on, and listeners are told", () => {
    const replaced = new CertificateAuthority(newRoot(), clock);
    const before = replaced.rootBundlePem;
    const told: string[] = [];
    const stop = replaced.onReplaced(() => told.push(replaced.rootBundlePem));
    const next = newRoot();
    replaced.replace(next);
    expect(told).toEqual([next.certificatePem]);
    expect(before).not.toBe(replaced.rootBundlePem);
    const chain = replaced.sign(createCsr(identity).csrPem, identity, 60);
    expect(chain.at(-1)).toBe(next.certificatePem);
    const root = new X509Certificate(next.certificatePem);
    expect(new X509Certificate(chain[0]!).verify(root.publicKey)).toBe(true);
    stop();
    replaced.replace(newRoot());
    expect(told).toHaveLength(1);
  });
});
