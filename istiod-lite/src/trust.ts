// From configuration to the certificate authority and to the check of tokens. Fails at start, with a
// sentence, on anything that would only fail later.

import { readFileSync } from "node:fs";
import type { Clock } from "@ambit/common/process/clock.ts";
import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { createRoot, signingRoot } from "@ambit/common/tls/issuer.ts";
import { CertificateAuthority } from "./ca/authority.ts";
import { JwksAuthenticator } from "./ca/jwks-authenticator.ts";
import { loadPluggedIn } from "./ca/plugged-in.ts";
import { PluggedInReload } from "./ca/plugged-in-reload.ts";
import { loadSelfSigned, RootRenewal } from "./ca/self-signed.ts";
import type { TokenAuthenticator } from "./ca/token-authenticator.ts";
import type { Config } from "./config.ts";

export interface TrustSurroundings {
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Logger;
}

/** The authority, and what keeps it current until it is closed. */
export interface Trust {
  readonly authority: CertificateAuthority;
  close(): void;
}

/** Plugged in, self-signed and kept, or self-signed for this run only. Throws UserError. */
export function createTrust(config: Config, around: TrustSurroundings): Trust {
  const { caCertsFolder, caFolder, trustDomain } = config;
  if (caCertsFolder !== undefined) return pluggedIn(config, caCertsFolder, around);
  if (caFolder !== undefined) return selfSigned(config, caFolder, around);
  const { clock, log } = around;
  log.warn("no CA_DIR: the root certificate lives only as long as this process");
  const ca = signingRoot(createRoot(trustDomain, clock.nowMs()));
  return { authority: new CertificateAuthority(ca, clock, config), close: () => undefined };
}

function pluggedIn(config: Config, folder: string, { clock, log }: TrustSurroundings): Trust {
  return naming("CACERTS_DIR", folder, () => {
    const authority = new CertificateAuthority(loadPluggedIn(folder), clock, config);
    const { multiRoot } = config;
    const reload = new PluggedInReload({ authority, folder, multiRoot, clock, log });
    return { authority, close: () => reload.close() };
  });
}

function selfSigned(config: Config, folder: string, around: TrustSurroundings): Trust {
  return naming("CA_DIR", folder, () => {
    const { clock } = around;
    const load = () => loadSelfSigned(folder, config.trustDomain, clock.nowMs());
    const authority = new CertificateAuthority(load(), clock, config);
    const renewal = new RootRenewal({ authority, load, ...around });
    return { authority, close: () => renewal.close() };
  });
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
