// Makes X.509 certificates (RFC 5280): roots, intermediates and workload leaves, with Istio's shape.

import {
  createHash,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from "node:crypto";
import {
  type Asn1,
  bitString,
  bool,
  isContextTag,
  children,
  context,
  contextText,
  fromDer,
  integer,
  objectId,
  octetString,
  sequence,
  set,
  time,
  toDer,
  utf8,
} from "./der.ts";
import { toPem } from "./pem.ts";

const OID = {
  organization: "2.5.4.10",
  commonName: "2.5.4.3",
  basicConstraints: "2.5.29.19",
  keyUsage: "2.5.29.15",
  extendedKeyUsage: "2.5.29.37",
  subjectAltName: "2.5.29.17",
  subjectKeyId: "2.5.29.14",
  authorityKeyId: "2.5.29.35",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  clientAuth: "1.3.6.1.5.5.7.3.2",
  ecdsaWithSha256: "1.2.840.10045.4.3.2",
  rsaWithSha256: "1.2.840.113549.1.1.11",
} as const;

export type KeyPurpose = "serverAuth" | "clientAuth";

export type SubjectAltName =
  | { readonly type: "uri"; readonly value: string }
  | { readonly type: "dns"; readonly value: string }
  /** 4 or 16 bytes. */
  | { readonly type: "ip"; readonly value: Uint8Array };

export interface CertificateRequest {
  readonly publicKey: KeyObject;
  /** Organization; empty subject when undefined. */
  readonly organization?: string;
  readonly commonName?: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly isCa: boolean;
  readonly purposes?: readonly KeyPurpose[];
  readonly sans?: readonly SubjectAltName[];
}

export interface Issuer {
  readonly certificatePem: string;
  readonly privateKey: KeyObject;
}

export interface KeyPair {
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}

/** A fresh ECDSA P-256 key pair. */
export function generateKeyPair(): KeyPair {
  return generateKeyPairSync("ec", { namedCurve: "prime256v1" });
}

/** Signs a certificate with the issuer's key, or with `selfKey` as its own issuer. Returns PEM. */
export function issueCertificate(
  request: CertificateRequest,
  issuer: Issuer | { readonly selfKey: KeyObject },
): string {
  const selfSigned = "selfKey" in issuer;
  const signingKey = selfSigned ? issuer.selfKey : issuer.privateKey;
  const subject = nameOf(request);
  const issuerName = selfSigned ? subject : subjectOf(issuer.certificatePem);
  const algorithm = signatureAlgorithm(signingKey);
  const issuerKeyId = keyId(
    selfSigned ? request.publicKey : createPublicKey(issuer.certificatePem),
  );
  const tbs = sequence(
    context(0, integer(Uint8Array.of(2))),
    integer(serialNumber()),
    algorithm,
    issuerName,
    sequence(time(request.notBeforeMs), time(request.notAfterMs)),
    subject,
    fromDer(request.publicKey.export({ type: "spki", format: "der" })),
    context(3, sequence(...extensions(request, issuerKeyId))),
  );
  const signature = sign("sha256", toDer(tbs), signingKey);
  return toPem("CERTIFICATE", toDer(sequence(tbs, algorithm, bitString(signature))));
}

export function signatureAlgorithm(key: KeyObject): Asn1 {
  if (key.asymmetricKeyType === "ec") return sequence(objectId(OID.ecdsaWithSha256));
  if (key.asymmetricKeyType === "rsa") {
    return sequence(objectId(OID.rsaWithSha256), fromDer(Uint8Array.of(5, 0)));
  }
  throw new Error(`keys of type ${key.asymmetricKeyType} cannot sign here: use EC P-256 or RSA`);
}

function extensions(request: CertificateRequest, issuerKeyId: Buffer): Asn1[] {
  const usage = request.isCa ? KEY_USAGE_CA : KEY_USAGE_LEAF;
  const list = [
    extension(OID.keyUsage, true, fromDer(usage)),
    extension(OID.basicConstraints, true, request.isCa ? sequence(bool(true)) : sequence()),
    extension(OID.subjectKeyId, false, rawOctets(keyId(request.publicKey))),
    extension(OID.authorityKeyId, false, sequence(contextText(0, issuerKeyId.toString("latin1")))),
  ];
  if (request.purposes !== undefined) {
    const oids = request.purposes.map((purpose) => objectId(OID[purpose]));
    list.push(extension(OID.extendedKeyUsage, false, sequence(...oids)));
  }
  if (request.sans !== undefined) {
    list.push(subjectAltNameExtension(request.sans, isEmptySubject(request)));
  }
  return list;
}

/** BIT STRINGs: digitalSignature + keyEncipherment; keyCertSign + cRLSign. */
const KEY_USAGE_LEAF = Uint8Array.of(3, 2, 5, 0xa0);
const KEY_USAGE_CA = Uint8Array.of(3, 2, 1, 0x06);

/** The SAN extension; critical when the subject is empty (RFC 5280 §4.2.1.6). */
export function subjectAltNameExtension(sans: readonly SubjectAltName[], critical: boolean): Asn1 {
  const names = sans.map(({ type, value }) => {
    if (type === "ip") return contextText(7, Buffer.from(value).toString("latin1"));
    return contextText(type === "uri" ? 6 : 2, value);
  });
  return extension(OID.subjectAltName, critical, sequence(...names));
}

function extension(oid: string, critical: boolean, value: Asn1): Asn1 {
  const flag = critical ? [bool(true)] : [];
  return sequence(objectId(oid), ...flag, octetString(value));
}

function rawOctets(bytes: Buffer): Asn1 {
  return fromDer(Buffer.concat([Uint8Array.of(4, bytes.length), bytes]));
}

function isEmptySubject({ organization, commonName }: CertificateRequest): boolean {
  return organization === undefined && commonName === undefined;
}

function nameOf({ organization, commonName }: CertificateRequest): Asn1 {
  const part = (oid: string, text: string) => set(sequence(objectId(oid), utf8(text)));
  return sequence(
    ...(organization === undefined ? [] : [part(OID.organization, organization)]),
    ...(commonName === undefined ? [] : [part(OID.commonName, commonName)]),
  );
}

/** The subject of a certificate, exactly as encoded, to become an issuer name. */
export function subjectOf(certificatePem: string): Asn1 {
  const [tbs] = children(fromDer(new X509Certificate(certificatePem).raw));
  const fields = children(tbs);
  const versioned = isContextTag(fields[0]!);
  return fields[versioned ? 5 : 4]!;
}

/** RFC 5280 §4.2.1.2 method 1, over the whole SPKI, as Go does not care which. */
function keyId(key: KeyObject): Buffer {
  return createHash("sha1")
    .update(key.export({ type: "spki", format: "der" }))
    .digest();
}

/** 16 random bytes, positive (RFC 5280 §4.1.2.2). */
function serialNumber(): Uint8Array {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return bytes;
}
