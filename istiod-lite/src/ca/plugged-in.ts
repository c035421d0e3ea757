// A certificate authority that an operator plugs in: a folder with Istio's `cacerts` files, or with the
// files of a Kubernetes TLS secret. Read whole and checked whole: what does not fit together is refused.

import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import type { SigningCa } from "@ambit/common/tls/issuer.ts";
import { splitPem } from "@ambit/common/tls/pem.ts";

/** The files of one layout; a layout without a chain file has the chain behind the certificate. */
interface Layout {
  readonly certificate: string;
  readonly key: string;
  readonly roots: string;
  readonly chain?: string;
}

const CACERTS: Layout = {
  certificate: "ca-cert.pem",
  key: "ca-key.pem",
  roots: "root-cert.pem",
  chain: "cert-chain.pem",
};
const TLS_SECRET: Layout = { certificate: "tls.crt", key: "tls.key", roots: "ca.crt" };

/** Loads the CA of `folder`. Throws UserError naming what is missing or does not fit together. */
export function loadPluggedIn(folder: string): SigningCa {
  const layout = existsSync(join(folder, TLS_SECRET.certificate)) ? TLS_SECRET : CACERTS;
  const missing = Object.values(layout).filter((file: string) => !existsSync(join(folder, file)));
  if (missing.length > 0) {
    const all = Object.values(layout).join(", ");
    throw new UserError(
      `the CA folder ${folder} lacks ${missing.join(", ")}: all of ${all} are needed`,
    );
  }
  const read = (file: string) => readFileSync(join(folder, file), "utf8");
  const certificates = (file: string) => pemCertificates(join(folder, file), read(file));
  const [certificatePem, ...behind] = certificates(layout.certificate);
  const rootsPem = certificates(layout.roots);
  const chain = layout.chain === undefined ? behind : splitPem(read(layout.chain), "CERTIFICATE");
  const ca: SigningCa = {
    certificatePem: certificatePem!,
    privateKey: privateKeyOf(join(folder, layout.key), read(layout.key)),
    intermediatesPem: pathAbove(certificatePem!, chain, rootsPem),
    rootsPem,
  };
  check(ca, folder, layout);
  return ca;
}

function pemCertificates(path: string, text: string): string[] {
  const blocks = splitPem(text, "CERTIFICATE");
  if (blocks.length === 0) throw new UserError(`${path} holds no certificate`);
  for (const pem of blocks) {
    try {
      fingerprint(pem);
    } catch (error) {
      throw new UserError(`${path} holds a broken certificate: ${errorMessage(error)}`);
    }
  }
  return blocks;
}

function privateKeyOf(path: string, text: string): SigningCa["privateKey"] {
  try {
    return createPrivateKey(text);
  } catch (error) {
    throw new UserError(`${path} holds no private key: ${errorMessage(error)}`);
  }
}

/** What a peer needs to get from a leaf to a root: the CA itself unless it is one, then what is above. */
function pathAbove(
  certificatePem: string,
  chain: readonly string[],
  rootsPem: readonly string[],
): string[] {
  const roots = new Set(rootsPem.map(fingerprint));
  const seen = new Set<string>();
  return [certificatePem, ...chain].filter((pem) => {
    const print = fingerprint(pem);
    if (roots.has(print) || seen.has(print)) return false;
    seen.add(print);
    return true;
  });
}

export function fingerprint(certificatePem: string): string {
  return new X509Certificate(certificatePem).fingerprint256;
}

function check(ca: SigningCa, folder: string, layout: Layout): void {
  const certificate = new X509Certificate(ca.certificatePem);
  if (!createPublicKey(ca.privateKey).equals(certificate.publicKey)) {
    throw new UserError(`${join(folder, layout.key)} is not the key of ${layout.certificate}`);
  }
  if (!certificate.ca) {
    throw new UserError(`${join(folder, layout.certificate)} is not a CA certificate`);
  }
  if (!leadsToRoot(ca)) {
    throw new UserError(
      `${join(folder, layout.certificate)} does not lead to a root of ${layout.roots}: ` +
        `put the certificates between them into ${layout.chain ?? layout.certificate}`,
    );
  }
}

/** Each certificate is signed by the next one, and the last by a root, or is one. */
function leadsToRoot({ certificatePem, intermediatesPem, rootsPem }: SigningCa): boolean {
  const roots = rootsPem.map((pem) => new X509Certificate(pem));
  const path = intermediatesPem.map((pem) => new X509Certificate(pem));
  if (path.length === 0) return rootsPem.map(fingerprint).includes(fingerprint(certificatePem));
  return path.every((certificate, i) => {
    const issuers = i + 1 < path.length ? [path[i + 1]!] : roots;
    return issuers.some(
      (issuer) => certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey),
    );
  });
}
