// Certificate signing requests (RFC 2986) as Istio's proxies send them: empty subject, one critical
// URI SAN, ECDSA P-256 with SHA-256.

import { createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import {
  bitString,
  children,
  content,
  context,
  fromDer,
  integer,
  objectId,
  oidOf,
  sequence,
  set,
  toDer,
} from "./der.ts";
import { type Identity, spiffeId } from "./identity.ts";
import { pemToDer, toPem } from "./pem.ts";
import { generateKeyPair, signatureAlgorithm, subjectAltNameExtension } from "./x509.ts";

const OID_EXTENSION_REQUEST = "1.2.840.113549.1.9.14";
const LABEL = "CERTIFICATE REQUEST";
/** A CSR with a P-256 or RSA-4096 key is far smaller. */
const CSR_BYTES_MAX = 16_384;

export interface CreatedCsr {
  readonly csrPem: string;
  /** PKCS#8. */
  readonly keyPem: string;
}

/** A CSR for `identity` with a fresh key. */
export function createCsr(identity: Identity): CreatedCsr {
  const { publicKey, privateKey } = generateKeyPair();
  const san = subjectAltNameExtension([{ type: "uri", value: spiffeId(identity) }], true);
  const info = sequence(
    integer(Uint8Array.of(0)),
    sequence(),
    fromDer(publicKey.export({ type: "spki", format: "der" })),
    context(0, sequence(objectId(OID_EXTENSION_REQUEST), set(sequence(san)))),
  );
  const signature = sign("sha256", toDer(info), privateKey);
  const request = sequence(info, signatureAlgorithm(privateKey), bitString(signature));
  return {
    csrPem: toPem(LABEL, toDer(request)),
    keyPem: privateKey.export({ type: "pkcs8", format: "pem" }),
  };
}

const HASH_OF_SIGNATURE = new Map([
  ["1.2.840.10045.4.3.2", "sha256"],
  ["1.2.840.10045.4.3.3", "sha384"],
  ["1.2.840.10045.4.3.4", "sha512"],
  ["1.2.840.113549.1.1.11", "sha256"],
  ["1.2.840.113549.1.1.12", "sha384"],
  ["1.2.840.113549.1.1.13", "sha512"],
]);

/** The public key of a CSR whose signature holds. Throws an Error that says what is wrong. */
export function parseCsr(csrPem: string): KeyObject {
  const der = pemToDer(csrPem, LABEL);
  if (der === undefined || der.length === 0) throw new Error("CSR: no CERTIFICATE REQUEST block");
  if (der.length > CSR_BYTES_MAX) throw new Error(`CSR: larger than ${CSR_BYTES_MAX} bytes`);
  let parsed: { info: Buffer; key: KeyObject; hash: string | undefined; signature: Buffer };
  try {
    const [info, algorithm, signature] = children(fromDer(der));
    const spki = children(info)[2]!;
    parsed = {
      info: toDer(info!),
      key: createPublicKey({ key: toDer(spki), type: "spki", format: "der" }),
      hash: HASH_OF_SIGNATURE.get(oidOf(children(algorithm)[0])),
      signature: content(signature).subarray(1),
    };
  } catch (error) {
    throw new Error("CSR: not a PKCS#10 request", { cause: error });
  }
  if (parsed.hash === undefined) throw new Error("CSR: unsupported signature algorithm");
  if (!verify(parsed.hash, parsed.info, parsed.key, parsed.signature)) {
    throw new Error("CSR: its signature does not match its key");
  }
  return parsed.key;
}
