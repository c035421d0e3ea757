// The worker's view of certificates: the main thread owns fetching and renewal and sends the results.
// A caller waits for the first answer about an identity; afterwards it gets the current one at once.

import type { Clock } from "@ambit/common/process/clock.ts";
import type { SpiffeId } from "@ambit/common/tls/identity.ts";
import type { WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import { ProxyError } from "../proxy/proxy-error.ts";

/** How long a connection waits for the first certificate of its identity. */
const FIRST_CERTIFICATE_WAIT_MS = 10_000;

/** A connection waits, or one may come soon. */
export type Urgency = "now" | "warmup";

type Entry =
  | { readonly state: "asked"; readonly waiters: Set<Waiter>; urgency: Urgency }
  | { readonly state: "available"; readonly certificate: WorkloadCertificate }
  | { readonly state: "failed"; readonly reason: string };

interface Waiter {
  resolve(certificate: WorkloadCertificate): void;
  reject(error: ProxyError): void;
}

export class CertificateView {
  readonly #clock: Clock;
  readonly #ask: (id: SpiffeId, urgency: Urgency) => void;
  readonly #entries = new Map<SpiffeId, Entry>();

  /** `ask` tells the main thread that a certificate is wanted. */
  constructor(clock: Clock, ask: (id: SpiffeId, urgency: Urgency) => void) {
    this.#clock = clock;
    this.#ask = ask;
  }

  /** The current certificate; undefined when there is none or it has expired. Never waits. */
  current(id: SpiffeId): WorkloadCertificate | undefined {
    const entry = this.#entries.get(id);
    if (entry?.state !== "available") return undefined;
    return entry.certificate.notAfterMs > this.#clock.nowMs() ? entry.certificate : undefined;
  }

  /** A valid certificate, waiting for the first answer. Rejects with IDENTITY_UNAVAILABLE: fail closed. */
  async get(id: SpiffeId): Promise<WorkloadCertificate> {
    const entry = this.#entries.get(id);
    if (entry?.state === "failed") throw unavailable(id, entry.reason);
    if (entry?.state === "available") {
      const certificate = this.current(id);
      if (certificate === undefined) throw unavailable(id, "the certificate has expired");
      return certificate;
    }
    const asked = entry ?? this.#startAsking(id, "now");
    if (asked.urgency !== "now") {
      asked.urgency = "now";
      this.#ask(id, "now");
    }
    return this.#wait(id, asked.waiters);
  }

  /** Asks early, so that the first connection of `id` need not wait; what is known stays as it is. */
  warm(id: SpiffeId): void {
    if (!this.#entries.has(id)) this.#startAsking(id, "warmup");
  }

  /** What the main thread knows now: a certificate, a failure, or neither (forgotten). */
  update(id: SpiffeId, certificate: WorkloadCertificate | undefined, error?: string): void {
    const entry = this.#entries.get(id);
    const waiters = entry?.state === "asked" ? entry.waiters : undefined;
    if (certificate !== undefined) {
      this.#entries.set(id, { state: "available", certificate });
      for (const waiter of waiters ?? []) waiter.resolve(certificate);
    } else if (error !== undefined) {
      this.#entries.set(id, { state: "failed", reason: error });
      for (const waiter of waiters ?? []) waiter.reject(unavailable(id, error));
    } else {
      this.#entries.delete(id);
      for (const waiter of waiters ?? [])
        waiter.reject(unavailable(id, "no longer a local identity"));
    }
  }

  #startAsking(id: SpiffeId, urgency: Urgency) {
    const asked = { state: "asked" as const, waiters: new Set<Waiter>(), urgency };
    this.#entries.set(id, asked);
    this.#ask(id, urgency);
    return asked;
  }

  #wait(id: SpiffeId, waiters: Set<Waiter>): Promise<WorkloadCertificate> {
    return new Promise((resolve, reject) => {
      const timer = this.#clock.after(FIRST_CERTIFICATE_WAIT_MS, () => {
        waiters.delete(waiter);
        reject(unavailable(id, `no certificate within ${FIRST_CERTIFICATE_WAIT_MS / 1000} s`));
      });
      const waiter: Waiter = {
        resolve: (certificate) => (timer.cancel(), resolve(certificate)),
        reject: (error) => (timer.cancel(), reject(error)),
      };
      waiters.add(waiter);
    });
  }
}

function unavailable(id: SpiffeId, reason: string): ProxyError {
  return new ProxyError("IDENTITY_UNAVAILABLE", `identity ${id} is unavailable: ${reason}`);
}
