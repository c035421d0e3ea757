// A signing certificate and what it signs for workloads (Istio's leaf shape, facts of istiod's CA):
// valid from two minutes ago, never beyond the CA itself, both key usages, one URI SAN.

import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from "node:crypto";
import { type Identity, spiffeId } from "./identity.ts";
import { generateKeyPair, issueCertificate } from "./x509.ts";

/** Clocks of nodes differ: a certificate must be valid at once everywhere. */
const BACKDATE_MS = 2 * 60_000;
const ROOT_LIFETIME_MS = 10 * 365 * 86_400_000;

export interface SigningCa {
  readonly certificatePem: string;
  readonly privateKey: KeyObject;
  /** Certificates between ours and the root, ours first when it is no root itself. */
  readonly intermediatesPem: readonly string[];
  /** Every root that peers should trust. */
  readonly rootsPem: readonly string[];
}

export interface CaFiles {
  readonly certificatePem: string;
  readonly keyPem: string;
}

/** A new self-signed root for a trust domain, valid for ten years. */
export function createRoot(trustDomain: string, nowMs: number, keyPem?: string): CaFiles {
  const pair = keyPem === undefined ? generateKeyPair() : pairFromPem(keyPem);
  const certificatePem = issueCertificate(
    {
      publicKey: pair.publicKey,
      organization: trustDomain,
      notBeforeMs: nowMs - BACKDATE_MS,
      notAfterMs: nowMs + ROOT_LIFETIME_MS,
      isCa: true,
    },
    { selfKey: pair.privateKey },
  );
  return {
    certificatePem,
    keyPem: pair.privateKey.export({ type: "pkcs8", format: "pem" }),
  };
}

function pairFromPem(keyPem: string): { publicKey: KeyObject; privateKey: KeyObject } {
  const privateKey = createPrivateKey(keyPem);
  return { privateKey, publicKey: createPublicKey(privateKey) };
}

/** A root as a signing CA of its own. */
export function signingRoot({ certificatePem, keyPem }: CaFiles): SigningCa {
  return {
    certificatePem,
    privateKey: createPrivateKey(keyPem),
    intermediatesPem: [],
    rootsPem: [certificatePem],
  };
}

/** Signs a workload's key. Returns the chain as the CA service sends it: leaf, intermediates, roots. */
export function signWorkload(
  ca: SigningCa,
  request: { publicKey: KeyObject; identity: Identity; ttlMs: number; nowMs: number },
): string[] {
  const { publicKey, identity, ttlMs, nowMs } = request;
  const caEndMs = new X509Certificate(ca.certificatePem).validToDate.getTime();
  const leafPem = issueCertificate(
    {
      publicKey,
      notBeforeMs: nowMs - BACKDATE_MS,
      notAfterMs: Math.min(nowMs + ttlMs, caEndMs),
      isCa: false,
      purposes: ["serverAuth", "clientAuth"],
      sans: [{ type: "uri", value: spiffeId(identity) }],
    },
    ca,
  );
  return [leafPem, ...ca.intermediatesPem, ca.rootsPem.join("")];
}
