// A workload's certificate with key and chain, as plain data: it crosses threads.

import { X509Certificate } from "node:crypto";
import { type Identity, parseSpiffeId, type SpiffeId, spiffeId } from "./identity.ts";
import { splitPem } from "./pem.ts";

export interface WorkloadCertificate {
  readonly identity: Identity;
  /** PKCS#8 PEM. */
  readonly keyPem: string;
  readonly leafPem: string;
  readonly intermediatesPem: readonly string[];
  readonly rootsPem: readonly string[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Hexadecimal. */
  readonly serialNumber: string;
}

/**
 * A CA's answer as a certificate (ztunnel §5.1): leaf, intermediates, and last the root bundle.
 * Throws an Error when the chain is too short, or the leaf is not for `identity`.
 */
export function certificateFromChain(
  identity: Identity,
  keyPem: string,
  chain: readonly string[],
): WorkloadCertificate {
  const [leafPem, ...rest] = chain;
  const bundle = rest.pop();
  if (leafPem === undefined || bundle === undefined) {
    throw new Error(`certificate chain of ${chain.length}: at least a leaf and a root are needed`);
  }
  const leaf = new X509Certificate(leafPem);
  const found = uriSans(leaf)[0];
  if (found !== spiffeId(identity)) {
    throw new Error(`certificate is for ${found ?? "nobody"}, not for ${spiffeId(identity)}`);
  }
  const rootsPem = splitPem(bundle, "CERTIFICATE");
  if (rootsPem.length === 0)
    throw new Error("the last element of the chain holds no root certificate");
  return {
    identity,
    keyPem,
    leafPem,
    intermediatesPem: rest,
    rootsPem,
    notBeforeMs: leaf.validFromDate.getTime(),
    notAfterMs: leaf.validToDate.getTime(),
    serialNumber: leaf.serialNumber.toLowerCase(),
  };
}

/** URI SANs in order, as the certificate states them. */
export function uriSans(certificate: X509Certificate): string[] {
  return sanEntries(certificate.subjectAltName ?? "")
    .filter((entry) => entry.startsWith("URI:"))
    .map((entry) => entry.slice("URI:".length));
}

/** Identities of a peer: its parsable SPIFFE URI SANs, in order (ztunnel §1.2). */
export function peerIdentities(certificate: X509Certificate): Identity[] {
  return uriSans(certificate).flatMap((uri) => parseSpiffeId(uri) ?? []);
}

export function hasIdentity(
  identities: readonly Identity[],
  allowed: readonly SpiffeId[],
): boolean {
  return identities.some((identity) => allowed.includes(spiffeId(identity)));
}

/** Splits Node's text form; values with separators are JSON-quoted (CVE-2021-44532). */
function sanEntries(text: string): string[] {
  const entries: string[] = [];
  const pattern = /([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^,]*)(?:, |$)/g;
  for (const [, type, value] of text.matchAll(pattern)) {
    const plain = value!.startsWith('"') ? (JSON.parse(value!) as string) : value!;
    entries.push(`${type}:${plain}`);
  }
  return entries;
}
