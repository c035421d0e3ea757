// A certificate authority for tests: a root or an intermediate, leaves that are right or wrong in one
// named way, and lists of those it took back.

import { X509Certificate } from "node:crypto";
import {
  type CertificateRequest,
  generateKeyPair,
  issueCertificate,
  type Issuer,
  type KeyPair,
} from "../tls/x509.ts";
import { certificateFromChain, type WorkloadCertificate } from "../tls/certificate.ts";
import { type Identity, spiffeId } from "../tls/identity.ts";
import { issueRevocationList, type RevocationListRequest } from "./revocation-list-issuer.ts";

const HOUR_MS = 3_600_000;

export class TestCa {
  readonly rootPem: string;
  readonly #key: KeyPair = generateKeyPair();
  /** Ours; the root's when we are the root. */
  readonly #certificatePem: string;
  /** Up to the root, ours first; empty for the root itself. */
  readonly #intermediatesPem: readonly string[];

  /** An intermediate when it has a `parent`. */
  constructor(organization = "cluster.local", parent?: TestCa) {
    this.#certificatePem = issueCertificate(
      {
        publicKey: this.#key.publicKey,
        organization,
        notBeforeMs: Date.now() - HOUR_MS,
        notAfterMs: Date.now() + 24 * HOUR_MS,
        isCa: true,
      },
      parent === undefined ? { selfKey: this.#key.privateKey } : parent.#issuer,
    );
    this.rootPem = parent?.rootPem ?? this.#certificatePem;
    this.#intermediatesPem =
      parent === undefined ? [] : [this.#certificatePem, ...parent.#intermediatesPem];
  }

  get #issuer(): Issuer {
    return { certificatePem: this.#certificatePem, privateKey: this.#key.privateKey };
  }

  /** Our own certificate's serial number, in hexadecimal. */
  get serialNumber(): string {
    return new X509Certificate(this.#certificatePem).serialNumber;
  }

  /** A list of the serial numbers, in hexadecimal, that we took back. PEM. */
  revoke(...serialNumbers: readonly string[]): string {
    return this.list({ serialNumbers });
  }

  /** The same with everything else about the list as told. */
  list(request: RevocationListRequest): string {
    return issueRevocationList(request, this.#issuer);
  }

  /** A leaf for `identity`, valid for an hour unless `changes` say otherwise. */
  issue(identity: Identity, changes: Partial<CertificateRequest> = {}): WorkloadCertificate {
    const { publicKey, privateKey } = generateKeyPair();
    const leafPem = issueCertificate(
      {
        publicKey,
        notBeforeMs: Date.now() - HOUR_MS,
        notAfterMs: Date.now() + HOUR_MS,
        isCa: false,
        purposes: ["serverAuth", "clientAuth"],
        sans: [{ type: "uri", value: spiffeId(identity) }],
        ...changes,
      },
      this.#issuer,
    );
    const keyPem = privateKey.export({ type: "pkcs8", format: "pem" });
    if (changes.sans === undefined)
      return certificateFromChain(identity, keyPem, [
        leafPem,
        ...this.#intermediatesPem,
        this.rootPem,
      ]);
    return {
      identity,
      keyPem,
      leafPem,
      intermediatesPem: this.#intermediatesPem,
      rootsPem: [this.rootPem],
      notBeforeMs: 0,
      notAfterMs: Date.now() + HOUR_MS,
      serialNumber: "0",
    };
  }
}
