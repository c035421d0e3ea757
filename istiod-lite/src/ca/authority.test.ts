import { createPrivateKey, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { createCsr } from "@ambit/common/tls/csr.ts";
import { createRoot } from "@ambit/common/tls/issuer.ts";
import { generateKeyPair, issueCertificate } from "@ambit/common/tls/x509.ts";
import {
  type CertificateAuthority,
  pluggedInAuthority,
  selfSignedAuthority,
  TTL_DEFAULT_SECONDS,
  TTL_MAX_SECONDS,
} from "./authority.ts";

const identity = { trustDomain: "td", namespace: "ns", serviceAccount: "sa" };
const YEAR_MS = 365 * 86_400_000;
let folder: string;
let clock: FakeClock;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ambit-ca-"));
  clock = new FakeClock();
});
afterEach(() => rmSync(folder, { recursive: true }));

const selfSigned = () => selfSignedAuthority(folder, "td", clock);

function lifeSeconds(authority: CertificateAuthority, ttlSeconds: number): number {
  const [leaf] = authority.sign(createCsr(identity).csrPem, identity, ttlSeconds);
  return (new X509Certificate(leaf!).validToDate.getTime() - clock.nowMs()) / 1_000;
}

describe("signing", () => {
  it.each([
    ["the default for 0", 0, TTL_DEFAULT_SECONDS],
    ["the default for less", -1, TTL_DEFAULT_SECONDS],
    ["what was asked", 60, 60],
    ["the maximum", TTL_MAX_SECONDS, TTL_MAX_SECONDS],
  ])("gives %s as its life", (_, asked, given) => {
    expect(lifeSeconds(selfSigned(), asked)).toBe(given);
  });

  it("refuses a longer life than the maximum, and says so", () => {
    expect(() => lifeSeconds(selfSigned(), TTL_MAX_SECONDS + 1)).toThrow(/7776001 s.*7776000 s/);
  });

  it("ignores whom the request is for: the caller decides that", () => {
    const { csrPem } = createCsr({ ...identity, serviceAccount: "someone-else" });
    const [leaf] = selfSigned().sign(csrPem, identity, 60);
    expect(new X509Certificate(leaf!).subjectAltName).toBe("URI:spiffe://td/ns/ns/sa/sa");
  });

  it("refuses what is no request", () => {
    expect(() => selfSigned().sign("hello", identity, 60)).toThrow(/CSR: /);
  });
});

describe("a self-signed root", () => {
  it("is the same after a restart", () => {
    expect(selfSigned().rootBundlePem).toBe(selfSigned().rootBundlePem);
  });

  it("keeps its key to itself", () => {
    selfSigned();
    expect(readFileSync(join(folder, "ca-key.pem"), "utf8")).toContain("PRIVATE KEY");
  });

  it.each([
    ["is kept until the last fifth of its life", 7.9, true],
    ["is renewed with the same key in it", 8.1, false],
  ])("%s", async (_, years, kept) => {
    const before = selfSigned().rootBundlePem;
    await clock.advance(years * YEAR_MS);
    const after = selfSigned().rootBundlePem;
    expect(after === before).toBe(kept);
    expect(new X509Certificate(after).publicKey).toEqual(new X509Certificate(before).publicKey);
  });
});

describe("a plugged-in CA", () => {
  const write = (name: string, text: string) => writeFileSync(join(folder, name), text);

  /** A root, and an intermediate that signs for us. */
  function writeCa(): { rootPem: string; intermediatePem: string } {
    const root = createRoot("corp", clock.nowMs());
    const { publicKey, privateKey } = generateKeyPair();
    const intermediatePem = issueCertificate(
      {
        publicKey,
        organization: "mesh",
        notBeforeMs: clock.nowMs(),
        notAfterMs: clock.nowMs() + YEAR_MS,
        isCa: true,
      },
      { certificatePem: root.certificatePem, privateKey: createPrivateKey(root.keyPem) },
    );
    write("ca-cert.pem", intermediatePem);
    write("ca-key.pem", privateKey.export({ type: "pkcs8", format: "pem" }));
    write("root-cert.pem", root.certificatePem);
    write("cert-chain.pem", intermediatePem + root.certificatePem);
    return { rootPem: root.certificatePem, intermediatePem };
  }

  it("answers with leaf, intermediates and roots, each verified by the next", () => {
    const { rootPem, intermediatePem } = writeCa();
    const chain = pluggedInAuthority(folder, clock).sign(createCsr(identity).csrPem, identity, 60);
    expect(chain.slice(1)).toEqual([intermediatePem, rootPem]);
    const [leaf, intermediate] = chain.map((pem) => new X509Certificate(pem));
    expect(leaf!.verify(intermediate!.publicKey)).toBe(true);
  });

  it("that lacks files is refused with their names", () => {
    writeCa();
    rmSync(join(folder, "ca-key.pem"));
    rmSync(join(folder, "cert-chain.pem"));
    expect(() => pluggedInAuthority(folder, clock)).toThrow(/lacks ca-key.pem, cert-chain.pem/);
  });

  it("whose key is another's is refused", () => {
    writeCa();
    write("ca-key.pem", createRoot("x", clock.nowMs()).keyPem);
    expect(() => pluggedInAuthority(folder, clock)).toThrow(/ca-key.pem is not the key/);
  });

  it("whose certificate may not sign is refused", () => {
    const { publicKey, privateKey } = generateKeyPair();
    writeCa();
    const request = { publicKey, notBeforeMs: 0, notAfterMs: clock.nowMs(), isCa: false };
    write("ca-cert.pem", issueCertificate(request, { selfKey: privateKey }));
    write("ca-key.pem", privateKey.export({ type: "pkcs8", format: "pem" }));
    expect(() => pluggedInAuthority(folder, clock)).toThrow(/not a CA certificate/);
  });

  it.each(["ca-cert.pem", "ca-key.pem"])("with a %s that is no PEM names the file", (name) => {
    writeCa();
    write(name, "hello");
    expect(() => pluggedInAuthority(folder, clock)).toThrow(name);
  });

  it("without a root is refused: nobody could trust it", () => {
    writeCa();
    write("root-cert.pem", "hello");
    expect(() => pluggedInAuthority(folder, clock)).toThrow(/root-cert.pem/);
  });
});
