// From configuration to the certificate authority and to the check of tokens. Fails at start, with a
// sentence, on anything that would only fail later.

import { readFileSync } from "node:fs";
import type { Clock } from "@ambit/common/process/clock.ts";
import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { createRoot, signingRoot } from "@ambit/common/tls/issuer.ts";
import { CertificateAuthority, pluggedInAuthority, selfSignedAuthority } from "./ca/authority.ts";
import { JwksAuthenticator } from "./ca/jwks-authenticator.ts";
import type { TokenAuthenticator } from "./ca/token-authenticator.ts";
import type { Config } from "./config.ts";

/** Plugged in, self-signed and kept, or self-signed for this run only. Throws UserError. */
export function createAuthority(config: Config, clock: Clock, log: Logger): CertificateAuthority {
  const { caCertsFolder, caFolder, trustDomain } = config;
  if (caCertsFolder !== undefined) {
    return naming("CACERTS_DIR", caCertsFolder, () => pluggedInAuthority(caCertsFolder, clock));
  }
  if (caFolder !== undefined) {
    return naming("CA_DIR", caFolder, () => selfSignedAuthority(caFolder, trustDomain, clock));
  }
  log.warn("no CA_DIR: the root certificate lives only as long as this process");
  return new CertificateAuthority(signingRoot(createRoot(trustDomain, clock.nowMs())), clock);
}

/** Throws UserError when the key file is not a key set. */
export function createTokenAuthenticator(config: Config, clock: Clock): TokenAuthenticator {
  const { jwksFile: file, tokenIssuer: issuer = "", tokenAudiences: audiences } = config;
  if (file === undefined) {
    return { authenticate: () => Promise.reject(new Error("JWKS_FILE is not configured")) };
  }
  naming("JWKS_FILE", file, () => void JSON.parse(readFileSync(file, "utf8")));
  return new JwksAuthenticator({ file, issuer, audiences, clock });
}

function naming<T>(variable: string, path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`${variable} ${path}: ${errorMessage(error)}`);
  }
}
