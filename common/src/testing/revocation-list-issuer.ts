// Makes revocation lists (RFC 5280 §5) for tests: sound ones, and ones that are wrong in a named way.

import { sign } from "node:crypto";
import {
  type Asn1,
  bitString,
  bool,
  context,
  fromDer,
  integer,
  objectId,
  octetString,
  sequence,
  time,
  toDer,
} from "../tls/der.ts";
import { toPem } from "../tls/pem.ts";
import { type Issuer, signatureAlgorithm, subjectOf } from "../tls/x509.ts";

const DAY_MS = 86_400_000;

export interface ListExtension {
  readonly oid: string;
  readonly critical: boolean;
  readonly value: Asn1;
}

export interface RevocationListRequest {
  /** Hexadecimal. */
  readonly serialNumbers: readonly string[];
  readonly thisUpdateMs?: number;
  readonly nextUpdateMs?: number;
  readonly extensions?: readonly ListExtension[];
  readonly entryExtensions?: readonly ListExtension[];
}

/** Signed by the issuer; PEM. */
export function issueRevocationList(request: RevocationListRequest, issuer: Issuer): string {
  const { serialNumbers, extensions, entryExtensions } = request;
  const thisUpdateMs = request.thisUpdateMs ?? Date.now() - DAY_MS;
  const algorithm = signatureAlgorithm(issuer.privateKey);
  const entries = serialNumbers.map((serial) =>
    sequence(
      integer(Buffer.from(serial.padStart(serial.length + (serial.length % 2), "0"), "hex")),
      time(thisUpdateMs),
      ...(entryExtensions === undefined ? [] : [sequence(...entryExtensions.map(extension))]),
    ),
  );
  const tbs = sequence(
    integer(Uint8Array.of(1)),
    algorithm,
    subjectOf(issuer.certificatePem),
    time(thisUpdateMs),
    time(request.nextUpdateMs ?? thisUpdateMs + 2 * DAY_MS),
    ...(entries.length === 0 ? [] : [sequence(...entries)]),
    ...(extensions === undefined ? [] : [context(0, sequence(...extensions.map(extension)))]),
  );
  const signature = sign("sha256", toDer(tbs), issuer.privateKey);
  return toPem("X509 CRL", toDer(sequence(tbs, algorithm, bitString(signature))));
}

function extension({ oid, critical, value }: ListExtension): Asn1 {
  return sequence(objectId(oid), ...(critical ? [bool(true)] : []), octetString(value));
}

/** DER NULL, for extensions whose value does not matter. */
export const NOTHING: Asn1 = fromDer(Uint8Array.of(5, 0));
