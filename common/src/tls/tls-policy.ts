// Which TLS we speak in the mesh (ztunnel §1.1): 1.3 with AES-GCM, post-quantum key exchange where the
// peer has it; older or narrower by configuration. Owns one context per certificate.

import type tls from "node:tls";
import type { WorkloadCertificate } from "./certificate.ts";
import { TlsContext, type TlsProfile } from "./tls-context.ts";

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

/** What we speak. The hybrid needs TLS 1.3, so that "pqc" leaves out 1.2. */
function profileOf({ tls12, compliance }: TlsSettings): TlsProfile {
  const older = tls12 && compliance !== "pqc";
  return {
    minVersion: older ? "TLSv1.2" : "TLSv1.3",
    ciphers13: CIPHERS_13,
    ciphers12: CIPHERS_12,
    groups: GROUPS[compliance],
  };
}

/** The same for connections that Node makes: to the control plane and the CA. */
export function tlsOptions(settings: TlsSettings): tls.SecureContextOptions {
  const { minVersion, ciphers13, ciphers12, groups } = profileOf(settings);
  const ciphers = minVersion === "TLSv1.3" ? ciphers13 : `${ciphers13}:${ciphers12}`;
  return { minVersion, ciphers, ecdhCurve: groups };
}

export class TlsPolicy {
  readonly settings: TlsSettings;
  /** Building one parses keys and chains. */
  readonly #contexts = new WeakMap<WorkloadCertificate, TlsContext>();

  constructor(settings: TlsSettings) {
    this.settings = settings;
  }

  /** Throws an Error when OpenSSL does not take the certificate. */
  contextFor(certificate: WorkloadCertificate): TlsContext {
    const { settings } = this;
    const make = () => new TlsContext(certificate, profileOf(settings));
    return this.#contexts.getOrInsertComputed(certificate, make);
  }
}

export const DEFAULT_TLS_POLICY = new TlsPolicy(DEFAULT_TLS_SETTINGS);
