// The mesh's certificate authority: a self-signed root kept in a folder, or a plugged-in `cacerts` one.
// Owns the signing key. TTL rules are Istio's: a day by default, more than 90 days is an error.

import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "@ambit/common/process/clock.ts";
import { UserError } from "@ambit/common/process/errors.ts";
import { parseCsr } from "@ambit/common/tls/csr.ts";
import type { Identity } from "@ambit/common/tls/identity.ts";
import { createRoot, type SigningCa, signingRoot, signWorkload } from "@ambit/common/tls/issuer.ts";
import { splitPem } from "@ambit/common/tls/pem.ts";

export const TTL_DEFAULT_SECONDS = 24 * 3600;
export const TTL_MAX_SECONDS = 90 * 24 * 3600;
/** A self-signed root is renewed, with the same key, within the last fifth of its life. */
const RENEWAL_SHARE = 0.2;

/** A request that cannot be signed; the message is for the caller. */
export class SigningError extends Error {
  override readonly name = "SigningError";
}

export class CertificateAuthority {
  readonly #ca: SigningCa;
  readonly #clock: Clock;

  constructor(ca: SigningCa, clock: Clock) {
    this.#ca = ca;
    this.#clock = clock;
  }

  /** Every root that the mesh trusts, concatenated. */
  get rootBundlePem(): string {
    return this.#ca.rootsPem.join("");
  }

  get signingCa(): SigningCa {
    return this.#ca;
  }

  /**
   * Signs a CSR for `identity`: what the CSR itself asks for is ignored. `ttlSeconds` ≤ 0 means the
   * default. Throws SigningError for a bad CSR or too long a life.
   */
  sign(csrPem: string, identity: Identity, ttlSeconds: number): string[] {
    const ttl = ttlSeconds <= 0 ? TTL_DEFAULT_SECONDS : ttlSeconds;
    if (ttl > TTL_MAX_SECONDS) {
      throw new SigningError(
        `requested TTL ${ttl} s is greater than the maximum of ${TTL_MAX_SECONDS} s`,
      );
    }
    let publicKey;
    try {
      publicKey = parseCsr(csrPem);
    } catch (error) {
      throw new SigningError(error instanceof Error ? error.message : String(error), {
        cause: error,
      });
    }
    return signWorkload(this.#ca, {
      publicKey,
      identity,
      ttlMs: ttl * 1000,
      nowMs: this.#clock.nowMs(),
    });
  }
}

const SELF_SIGNED_CERT = "ca-cert.pem";
const SELF_SIGNED_KEY = "ca-key.pem";

/** Loads the root of `folder`, making or renewing it when needed. */
export function selfSignedAuthority(
  folder: string,
  trustDomain: string,
  clock: Clock,
): CertificateAuthority {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const certPath = join(folder, SELF_SIGNED_CERT);
  const keyPath = join(folder, SELF_SIGNED_KEY);
  const keyPem = existsSync(keyPath) ? readFileSync(keyPath, "utf8") : undefined;
  const known =
    keyPem !== undefined && existsSync(certPath) ? readFileSync(certPath, "utf8") : undefined;
  if (keyPem !== undefined && known !== undefined && !needsRenewal(known, clock.nowMs())) {
    return new CertificateAuthority(signingRoot({ certificatePem: known, keyPem }), clock);
  }
  const root = createRoot(trustDomain, clock.nowMs(), keyPem);
  writeAtomically(keyPath, root.keyPem);
  writeAtomically(certPath, root.certificatePem);
  return new CertificateAuthority(signingRoot(root), clock);
}

function needsRenewal(certificatePem: string, nowMs: number): boolean {
  const { validFromDate, validToDate } = new X509Certificate(certificatePem);
  const lifeMs = validToDate.getTime() - validFromDate.getTime();
  return validToDate.getTime() - nowMs < lifeMs * RENEWAL_SHARE;
}

function writeAtomically(path: string, text: string): void {
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, text, { mode: 0o600 });
  renameSync(draft, path);
}

const PLUGGED_IN = ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"] as const;

/** Loads a plugged-in CA. Throws UserError naming what is missing or does not fit together. */
export function pluggedInAuthority(folder: string, clock: Clock): CertificateAuthority {
  const missing = PLUGGED_IN.filter((file) => !existsSync(join(folder, file)));
  if (missing.length > 0) {
    throw new UserError(
      `the CA folder ${folder} lacks ${missing.join(", ")}: all of ${PLUGGED_IN.join(", ")} are needed`,
    );
  }
  const [certificatePem, keyPem, rootPem, chainPem] = PLUGGED_IN.map((file) =>
    readFileSync(join(folder, file), "utf8"),
  );
  const privateKey = createPrivateKey(keyPem!);
  const certificate = new X509Certificate(certificatePem!);
  if (!createPublicKey(privateKey).equals(certificate.publicKey)) {
    throw new UserError(`${join(folder, "ca-key.pem")} is not the key of ca-cert.pem`);
  }
  if (!certificate.ca)
    throw new UserError(`${join(folder, "ca-cert.pem")} is not a CA certificate`);
  const rootsPem = splitPem(rootPem!, "CERTIFICATE");
  const intermediatesPem = splitPem(chainPem!, "CERTIFICATE").filter(
    (pem) => !rootsPem.includes(pem),
  );
  return new CertificateAuthority(
    { certificatePem: certificatePem!, privateKey, intermediatesPem, rootsPem },
    clock,
  );
}
