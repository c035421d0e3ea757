// istiod's own TLS certificate for :15012, signed by the mesh's CA for the names proxies dial.

import { ipToBytes, parseIp } from "@ambit/common/net/ip.ts";
import { type SigningCa } from "@ambit/common/tls/issuer.ts";
import { generateKeyPair, issueCertificate, type SubjectAltName } from "@ambit/common/tls/x509.ts";

const DEFAULT_NAMES = [
  "istiod.istio-system.svc",
  "istiod.istio-system.svc.cluster.local",
  "istiod",
  "localhost",
  "127.0.0.1",
  "::1",
];
const BACKDATE_MS = 2 * 60_000;
const LIFETIME_MS = 365 * 86_400_000;

export interface ServingCertificate {
  readonly certificatePem: string;
  readonly keyPem: string;
}

/** `names` are DNS names and addresses beyond Istio's own. */
export function issueServingCertificate(
  ca: SigningCa,
  names: readonly string[],
  nowMs: number,
): ServingCertificate {
  const { publicKey, privateKey } = generateKeyPair();
  const sans = [...new Set([...DEFAULT_NAMES, ...names])].map((name): SubjectAltName => {
    const ip = parseIp(name);
    return ip === undefined ? { type: "dns", value: name } : { type: "ip", value: ipToBytes(ip) };
  });
  const leafPem = issueCertificate(
    {
      publicKey,
      notBeforeMs: nowMs - BACKDATE_MS,
      notAfterMs: nowMs + LIFETIME_MS,
      isCa: false,
      purposes: ["serverAuth"],
      sans,
    },
    ca,
  );
  const keyPem = privateKey.export({ type: "pkcs8", format: "pem" });
  return { certificatePem: [leafPem, ...ca.intermediatesPem].join(""), keyPem };
}
