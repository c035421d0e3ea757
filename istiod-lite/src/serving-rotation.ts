// The certificate of port 15012, issued anew every day, and when the CA changes, while the port stays open:
// an istiod that runs for years never serves an expired one. Connections made before keep theirs.

import { experimental, type ServerCredentials } from "@grpc/grpc-js";
import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import type { CertificateAuthority } from "./ca/authority.ts";
import { issueServingCertificate } from "./ca/serving-certificate.ts";

/** One signature a day costs nothing, and no lifetime has to be reckoned with. */
export const REISSUE_INTERVAL_MS = 24 * 3_600_000;

type Provider = experimental.CertificateProvider;
type Listener = experimental.IdentityCertificateUpdateListener;

export class ServingRotation implements Provider {
  readonly #authority: CertificateAuthority;
  readonly #names: readonly string[];
  readonly #clock: Clock;
  readonly #listeners = new Set<Listener>();
  #current: experimental.IdentityCertificateUpdate;
  readonly #stopListening: () => void;
  #timer: Timer;

  /** `names` are those of issueServingCertificate(). */
  constructor(authority: CertificateAuthority, names: readonly string[], clock: Clock) {
    this.#authority = authority;
    this.#names = names;
    this.#clock = clock;
    this.#current = this.#issue();
    this.#timer = this.#schedule();
    this.#stopListening = authority.onReplaced(() => this.#renew());
  }

  /** For the server that shall serve the current certificate; clients are not asked for theirs. */
  get credentials(): ServerCredentials {
    return experimental.createCertificateProviderServerCredentials(this, null, false);
  }

  close(): void {
    this.#timer.cancel();
    this.#stopListening();
  }

  addIdentityCertificateListener(listener: Listener): void {
    this.#listeners.add(listener);
    // grpc-js registers the server it passes this on to only after this call.
    queueMicrotask(() => {
      if (this.#listeners.has(listener)) listener(this.#current);
    });
  }

  removeIdentityCertificateListener(listener: Listener): void {
    this.#listeners.delete(listener);
  }

  /** Roots for client certificates: none are asked for. */
  addCaCertificateListener(): void {}

  removeCaCertificateListener(): void {}

  #issue(): experimental.IdentityCertificateUpdate {
    const { certificatePem, keyPem } = issueServingCertificate(
      this.#authority.signingCa,
      this.#names,
      this.#clock.nowMs(),
    );
    return { certificate: Buffer.from(certificatePem), privateKey: Buffer.from(keyPem) };
  }

  #schedule(): Timer {
    return this.#clock.after(REISSUE_INTERVAL_MS, () => {
      this.#renew();
      this.#timer = this.#schedule();
    });
  }

  #renew(): void {
    this.#current = this.#issue();
    for (const listener of this.#listeners) listener(this.#current);
  }
}
