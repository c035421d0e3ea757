// A certificate authority for tests: one root, and leaves that are right or wrong in one named way.

import {
  type CertificateRequest,
  generateKeyPair,
  issueCertificate,
  type KeyPair,
} from "../tls/x509.ts";
import { certificateFromChain, type WorkloadCertificate } from "../tls/certificate.ts";
import { type Identity, spiffeId } from "../tls/identity.ts";

const HOUR_MS = 3_600_000;

export class TestCa {
  readonly rootPem: string;
  readonly #key: KeyPair = generateKeyPair();

  constructor(organization = "cluster.local") {
    this.rootPem = issueCertificate(
      {
        publicKey: this.#key.publicKey,
        organization,
        notBeforeMs: Date.now() - HOUR_MS,
        notAfterMs: Date.now() + 24 * HOUR_MS,
        isCa: true,
      },
      { selfKey: this.#key.privateKey },
    );
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
      { certificatePem: this.rootPem, privateKey: this.#key.privateKey },
    );
    const keyPem = privateKey.export({ type: "pkcs8", format: "pem" });
    if (changes.sans === undefined)
      return certificateFromChain(identity, keyPem, [leafPem, this.rootPem]);
    return {
      identity,
      keyPem,
      leafPem,
      intermediatesPem: [],
      rootsPem: [this.rootPem],
      notBeforeMs: 0,
      notAfterMs: Date.now() + HOUR_MS,
      serialNumber: "0",
    };
  }
}
