import { createPrivateKey, X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { Signal } from "@ambit/common/testing/signal.ts";
import { createCsr } from "@ambit/common/tls/csr.ts";
import { type CaFiles, createRoot, type SigningCa } from "@ambit/common/tls/issuer.ts";
import { generateKeyPair, issueCertificate } from "@ambit/common/tls/x509.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { CertificateAuthority } from "./authority.ts";
import { loadPluggedIn } from "./plugged-in.ts";
import { PluggedInReload } from "./plugged-in-reload.ts";

const identity = { trustDomain: "td", namespace: "ns", serviceAccount: "sa" };
const YEAR_MS = 365 * 86_400_000;
const clock = new FakeClock();
const corp = createRoot("corp", clock.nowMs());
const next = createRoot("next", clock.nowMs());
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ambit-cacerts-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const write = (name: string, text: string) => writeFileSync(join(folder, name), text);

/** A CA certificate below `above`. */
function intermediate(above: CaFiles, organization = "mesh"): CaFiles {
  const { publicKey, privateKey } = generateKeyPair();
  const certificatePem = issueCertificate(
    {
      publicKey,
      organization,
      notBeforeMs: clock.nowMs(),
      notAfterMs: clock.nowMs() + YEAR_MS,
      isCa: true,
    },
    { certificatePem: above.certificatePem, privateKey: createPrivateKey(above.keyPem) },
  );
  return { certificatePem, keyPem: privateKey.export({ type: "pkcs8", format: "pem" }) };
}

/** Writes the files: an intermediate of the first root, and all roots as trusted. Returns it. */
function writeCa(roots: readonly CaFiles[] = [corp], signer = intermediate(roots[0]!)): CaFiles {
  write("ca-cert.pem", signer.certificatePem);
  write("ca-key.pem", signer.keyPem);
  write("root-cert.pem", roots.map(({ certificatePem }) => certificatePem).join(""));
  write("cert-chain.pem", signer.certificatePem + roots[0]!.certificatePem);
  return signer;
}

function sign(ca: SigningCa): string[] {
  return new CertificateAuthority(ca, clock).sign(createCsr(identity).csrPem, identity, 60);
}

describe("a plugged-in CA", () => {
  it("answers with leaf, intermediates and roots, each verified by the next", () => {
    const { certificatePem } = writeCa([corp, next]);
    const chain = sign(loadPluggedIn(folder));
    expect(chain.slice(1)).toEqual([certificatePem, corp.certificatePem + next.certificatePem]);
    const [leaf, above] = chain.map((pem) => new X509Certificate(pem));
    expect(leaf!.verify(above!.publicKey)).toBe(true);
  });

  it("puts its own certificate into the chain when the chain file lacks it", () => {
    const { certificatePem } = writeCa();
    write("cert-chain.pem", "");
    expect(sign(loadPluggedIn(folder)).slice(1)).toEqual([certificatePem, corp.certificatePem]);
  });

  it("may be two below the root", () => {
    const upper = intermediate(corp, "upper");
    const lower = writeCa([corp], intermediate(upper, "lower"));
    write("cert-chain.pem", lower.certificatePem + upper.certificatePem);
    const texts = [lower.certificatePem, upper.certificatePem, corp.certificatePem];
    expect(sign(loadPluggedIn(folder)).slice(1)).toEqual(texts);
  });

  it("may be a root itself", () => {
    writeCa([corp], corp);
    expect(sign(loadPluggedIn(folder)).slice(1)).toEqual([corp.certificatePem]);
  });

  it("may have the files of a Kubernetes TLS secret", () => {
    const { certificatePem, keyPem } = intermediate(corp);
    write("tls.crt", certificatePem + corp.certificatePem);
    write("tls.key", keyPem);
    write("ca.crt", corp.certificatePem);
    expect(sign(loadPluggedIn(folder)).slice(1)).toEqual([certificatePem, corp.certificatePem]);
  });

  const leafOnly = (): void => {
    const { publicKey, privateKey } = generateKeyPair();
    const request = { publicKey, notBeforeMs: 0, notAfterMs: clock.nowMs(), isCa: false };
    write("ca-cert.pem", issueCertificate(request, { selfKey: privateKey }));
    write("ca-key.pem", privateKey.export({ type: "pkcs8", format: "pem" }));
  };

  it.each<[string, () => void, RegExp]>([
    ["lacks a file", () => rmSync(join(folder, "ca-key.pem")), /lacks ca-key\.pem: all of /],
    ["has another's key", () => write("ca-key.pem", corp.keyPem), /ca-key.pem is not the key/],
    ["may not sign", leafOnly, /ca-cert.pem is not a CA certificate/],
    ["has no certificate", () => write("ca-cert.pem", "hello"), /ca-cert.pem holds no certificate/],
    ["has no key", () => write("ca-key.pem", "hello"), /ca-key.pem holds no private key/],
    ["has no root", () => write("root-cert.pem", "hello"), /root-cert.pem holds no certificate/],
    [
      "has a broken certificate",
      () => write("root-cert.pem", corp.certificatePem.replace("MI", "AA")),
      /root-cert.pem holds a broken certificate/,
    ],
    [
      "does not lead to its root",
      () => write("root-cert.pem", next.certificatePem),
      /ca-cert.pem does not lead to a root of root-cert.pem/,
    ],
  ])("that %s is refused, with the place", (_, spoil, message) => {
    writeCa();
    spoil();
    expect(() => loadPluggedIn(folder)).toThrow(message);
  });
});

describe("a plugged-in CA that changes while running", () => {
  /** What the authority trusts after `change`, and what the log says. */
  function after(multiRoot: boolean, change: () => void): { trusted: string; said: string } {
    const authority = new CertificateAuthority(loadPluggedIn(folder), clock);
    const { log: root, lines } = memoryLog("info");
    const log = root.scope("ca");
    const reload = new PluggedInReload({ authority, folder, multiRoot, clock, log });
    change();
    reload.reload();
    reload.close();
    return { trusted: authority.rootBundlePem, said: lines.join() };
  }
  const texts = (...roots: CaFiles[]) => roots.map((root) => root.certificatePem).join("");

  it("renews its intermediate below the same root", () => {
    writeCa();
    const { trusted, said } = after(false, () => void writeCa());
    expect(trusted).toBe(texts(corp));
    expect(said).toContain("plugged-in CA reloaded");
  });

  it.each<[string, boolean, CaFiles[], CaFiles[], boolean, string]>([
    ["gets a root beside the old one", true, [corp], [corp, next], true, "reloaded"],
    ["signs below the new root, both trusted", true, [corp, next], [next, corp], true, "reloaded"],
    ["drops the old root", true, [next, corp], [next], true, "reloaded"],
    ["swaps its root without overlap", true, [corp], [next], false, "keep the old and the new"],
    [
      "gets a root, rotation not allowed",
      false,
      [corp],
      [corp, next],
      false,
      "MULTIROOT_MESH=true",
    ],
  ])("%s", (_, multiRoot, before, now, taken, said) => {
    writeCa(before);
    const result = after(multiRoot, () => void writeCa(now));
    expect(result.trusted).toBe(texts(...(taken ? now : before)));
    expect(result.said).toContain(said);
  });

  it("is kept as it was when a file breaks", () => {
    writeCa();
    const { trusted, said } = after(true, () => write("ca-key.pem", "half a fi"));
    expect(trusted).toBe(texts(corp));
    expect(said).toContain("ca-key.pem holds no private key");
  });

  it("is noticed by itself, once all files are written", async () => {
    writeCa();
    const authority = new CertificateAuthority(loadPluggedIn(folder), systemClock);
    const log = memoryLog("info").log.scope("ca");
    const options = { authority, folder, multiRoot: true, clock: systemClock, log };
    const reload = new PluggedInReload(options);
    const signal = new Signal();
    authority.onReplaced(() => signal.changed());
    const { certificatePem } = writeCa([corp, next]);
    await signal.until(() => authority.signingCa.certificatePem === certificatePem);
    expect(authority.rootBundlePem).toBe(texts(corp, next));
    reload.close();
  });
});
