// The path from a peer's certificate to one of our roots (RFC 5280 §6.1), with what revocation asks of
// each certificate on it. OpenSSL has verified the peer; this says through whom.

import { type KeyObject, X509Certificate } from "node:crypto";
import type { WorkloadCertificate } from "./certificate.ts";
import { DerReader, Tag, trimHex } from "./der-reader.ts";

/** OpenSSL's own bound is 100; meshes have one intermediate, or two. */
export const PATH_LENGTH_MAX = 10;
/** What a peer may present besides its own certificate; more is not looked at. */
const PRESENTED_MAX = 16;

/** One certificate below the root. */
export interface PathLink {
  /** Hexadecimal, without leading zeros. */
  readonly serial: string;
  /** The issuer's name, DER in hexadecimal. */
  readonly issuer: string;
  readonly issuerKey: KeyObject;
}

/** From the leaf upwards, the root left out. */
export type CertificationPath = readonly PathLink[];

/** undefined when no chain of `presented` certificates ends at one of `roots`. */
export function certificationPath(
  leaf: X509Certificate,
  presented: readonly X509Certificate[],
  roots: readonly X509Certificate[],
): CertificationPath | undefined {
  const links: PathLink[] = [];
  const used = new Set<X509Certificate>();
  for (let current = leaf; links.length < PATH_LENGTH_MAX;) {
    const root = roots.find((candidate) => isIssuedBy(current, candidate));
    const above = root ?? presented.find((one) => !used.has(one) && isIssuedBy(current, one));
    if (above === undefined) return undefined;
    links.push(linkOf(current, above));
    if (root !== undefined) return links;
    used.add(above);
    current = above;
  }
  return undefined;
}

/** The path of a peer that has just been verified against our own roots. */
export function pathOfPeer(
  leaf: X509Certificate,
  presented: readonly X509Certificate[],
  { rootsPem }: WorkloadCertificate,
): CertificationPath | undefined {
  return certificationPath(leaf, presented.slice(0, PRESENTED_MAX), rootsOf(rootsPem));
}

const ownPaths = new WeakMap<WorkloadCertificate, { path: CertificationPath | undefined }>();

/** The path of a certificate of ours. */
export function pathOfOwn(certificate: WorkloadCertificate): CertificationPath | undefined {
  const { path } = ownPaths.getOrInsertComputed(certificate, () => {
    const { leafPem, intermediatesPem, rootsPem } = certificate;
    const presented = intermediatesPem.map((pem) => new X509Certificate(pem));
    return { path: certificationPath(new X509Certificate(leafPem), presented, rootsOf(rootsPem)) };
  });
  return path;
}

/** Bundles are few and long-lived; parsing one for every handshake would not be cheap. */
const parsedRoots = new WeakMap<readonly string[], readonly X509Certificate[]>();

function rootsOf(rootsPem: readonly string[]): readonly X509Certificate[] {
  return parsedRoots.getOrInsertComputed(rootsPem, () =>
    rootsPem.map((pem) => new X509Certificate(pem)),
  );
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function linkOf(certificate: X509Certificate, issuer: X509Certificate): PathLink {
  return {
    serial: trimHex(certificate.serialNumber),
    issuer: issuerNameOf(certificate.raw),
    issuerKey: issuer.publicKey,
  };
}

/** TBSCertificate: [0] version, serialNumber, signature, issuer, … (RFC 5280 §4.1). */
function issuerNameOf(der: Buffer): string {
  const body = new DerReader(der).enter(Tag.sequence).enter(Tag.sequence);
  if (body.nextTag === 0xa0) body.read();
  body.read(Tag.integer);
  body.read(Tag.sequence);
  return body.whole(body.read(Tag.sequence)).toString("hex");
}
