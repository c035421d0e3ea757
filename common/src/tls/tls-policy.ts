// Which TLS we speak in the mesh (ztunnel §1.1): 1.3 with AES-GCM, post-quantum key exchange where the
// peer has it; older or narrower by configuration. Owns one context per certificate.

import { constants } from "node:crypto";
import tls from "node:tls";
import type { WorkloadCertificate } from "./certificate.ts";

/** COMPLIANCE_POLICY; "none" when unset. */
export const COMPLIANCE_POLICIES = ["none", "pqc", "fips-140-2"] as const;
export type Compliance = (typeof COMPLIANCE_POLICIES)[number];

export interface TlsSettings {
  /** TLS12_ENABLED: peers that cannot speak TLS 1.3 are served. */
  readonly tls12: boolean;
  readonly compliance: Compliance;
}

export const DEFAULT_TLS_SETTINGS: TlsSettings = { tls12: false, compliance: "none" };

const CIPHERS_13 = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";
const CIPHERS_12 = [
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES128-GCM-SHA256",
].join(":");

/** In order of preference. FIPS 140-2 knows neither X25519 nor the hybrid. */
const GROUPS: Readonly<Record<Compliance, string>> = {
  none: "X25519MLKEM768:X25519:P-256:P-384",
  pqc: "X25519MLKEM768",
  "fips-140-2": "P-256:P-384",
};

/** What every context of ours has. The hybrid needs TLS 1.3, so that "pqc" leaves out 1.2. */
export function tlsOptions({ tls12, compliance }: TlsSettings): tls.SecureContextOptions {
  const older = tls12 && compliance !== "pqc";
  return {
    minVersion: older ? "TLSv1.2" : "TLSv1.3",
    ciphers: older ? `${CIPHERS_13}:${CIPHERS_12}` : CIPHERS_13,
    ecdhCurve: GROUPS[compliance],
  };
}

export class TlsPolicy {
  readonly settings: TlsSettings;
  /** Building one parses keys and chains. */
  readonly #contexts = new WeakMap<WorkloadCertificate, tls.SecureContext>();

  constructor(settings: TlsSettings) {
    this.settings = settings;
  }

  /**
   * Without session tickets: a resumed session would skip the look at the peer's certificate, so every
   * handshake is a full one, also with peers that try (Envoy does).
   */
  contextFor(certificate: WorkloadCertificate): tls.SecureContext {
    return this.#contexts.getOrInsertComputed(certificate, () =>
      tls.createSecureContext({
        ...tlsOptions(this.settings),
        key: certificate.keyPem,
        cert: [certificate.leafPem, ...certificate.intermediatesPem].join("\n"),
        ca: [...certificate.rootsPem],
        secureOptions: constants.SSL_OP_NO_TICKET,
      }),
    );
  }
}

export const DEFAULT_TLS_POLICY = new TlsPolicy(DEFAULT_TLS_SETTINGS);
