// The mesh's certificate authority: signs for whoever it is told to, with the key that is current. Owns
// that key and tells listeners when it changes. Where keys come from is self-signed.ts and plugged-in.ts.

import type { Clock } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { parseCsr } from "@ambit/common/tls/csr.ts";
import type { Identity } from "@ambit/common/tls/identity.ts";
import { type SigningCa, signWorkload } from "@ambit/common/tls/issuer.ts";

/** Lives of workload certificates. */
export interface LifetimeRules {
  /** What a request gets that does not ask. */
  readonly ttlDefaultSeconds: number;
  /** More than this is an error, not cut short: the caller would renew too late. */
  readonly ttlSecondsMax: number;
}

/** Istio's: a day, at most 90 days. */
export const LIFETIME_RULES: LifetimeRules = {
  ttlDefaultSeconds: 24 * 3600,
  ttlSecondsMax: 90 * 24 * 3600,
};

/** A request that cannot be signed; the message is for the caller. */
export class SigningError extends Error {
  override readonly name = "SigningError";
}

export class CertificateAuthority {
  readonly #clock: Clock;
  readonly #rules: LifetimeRules;
  readonly #listeners = new Set<() => void>();
  #ca: SigningCa;

  constructor(ca: SigningCa, clock: Clock, rules: LifetimeRules = LIFETIME_RULES) {
    this.#ca = ca;
    this.#clock = clock;
    this.#rules = rules;
  }

  /** Every root that the mesh trusts, concatenated. */
  get rootBundlePem(): string {
    return this.#ca.rootsPem.join("");
  }

  get signingCa(): SigningCa {
    return this.#ca;
  }

  /** From now on certificates are signed by `ca`. Those already issued live on. */
  replace(ca: SigningCa): void {
    this.#ca = ca;
    for (const listener of this.#listeners) listener();
  }

  /** Calls `listener` after every replacement. Returns the function that ends it. */
  onReplaced(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Signs a CSR for `identity`: what the CSR itself asks for is ignored. `ttlSeconds` ≤ 0 means the
   * default. Throws SigningError for a bad CSR or too long a life.
   */
  sign(csrPem: string, identity: Identity, ttlSeconds: number): string[] {
    const { ttlDefaultSeconds, ttlSecondsMax } = this.#rules;
    const ttl = ttlSeconds <= 0 ? ttlDefaultSeconds : ttlSeconds;
    if (ttl > ttlSecondsMax) {
      throw new SigningError(
        `requested TTL ${ttl} s is greater than the maximum of ${ttlSecondsMax} s`,
      );
    }
    return signWorkload(this.#ca, {
      publicKey: publicKeyOf(csrPem),
      identity,
      ttlMs: ttl * 1000,
      nowMs: this.#clock.nowMs(),
    });
  }
}

function publicKeyOf(csrPem: string): ReturnType<typeof parseCsr> {
  try {
    return parseCsr(csrPem);
  } catch (error) {
    throw new SigningError(errorMessage(error), { cause: error });
  }
}
