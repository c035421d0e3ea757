// The certificates of all local identities (ztunnel §5.2): one cache per process, at most eight fetches
// at a time by priority, renewal at half-life, back-off on failure, a valid certificate kept meanwhile.

import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import type { WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import { type Identity, parseSpiffeId, type SpiffeId } from "@ambit/common/tls/identity.ts";
import type { CaClient } from "./ca-client.ts";

export const CONCURRENT_FETCHES_MAX = 8;
const BACKOFF_FIRST_MS = 1_000;
const BACKOFF_MAX_MS = 150_000;
const BACKOFF_JITTER = 0.2;
/** A certificate that is past its half-life when it comes (a wrong clock) must not make us ask in a loop. */
const RENEWAL_DELAY_MIN_MS = 1_000;

/** Lower goes first. */
export const Priority = { realTime: 0, warmup: 1, background: 2 } as const;
type PriorityLevel = (typeof Priority)[keyof typeof Priority];

/** What is known of an identity's certificate now. */
export type SecretState =
  | { readonly state: "initializing" }
  | { readonly state: "available"; readonly certificate: WorkloadCertificate }
  | { readonly state: "unavailable"; readonly reason: string };

interface Secret {
  readonly id: SpiffeId;
  readonly identity: Identity;
  state: SecretState;
  priority: PriorityLevel;
  queuedAtMs: number;
  fetching: boolean;
  failures: number;
  timer: Timer | undefined;
}

export interface SecretManagerOptions {
  readonly ca: CaClient;
  readonly clock: Clock;
  readonly random: () => number;
  /** Called on every change; undefined when the identity was forgotten. */
  onChange(id: SpiffeId, state: SecretState | undefined): void;
}

export class SecretManager {
  readonly #options: SecretManagerOptions;
  readonly #secrets = new Map<SpiffeId, Secret>();
  readonly #queue = new Set<Secret>();
  #fetches = 0;

  constructor(options: SecretManagerOptions) {
    this.#options = options;
  }

  /** Every identity with its state, for the admin port. */
  get secrets(): { id: SpiffeId; state: SecretState }[] {
    return [...this.#secrets.values()].map(({ id, state }) => ({ id, state }));
  }

  /** Wants a certificate for `id`, now or sooner than so far. Repeats what is known already. */
  want(id: SpiffeId, priority: PriorityLevel): void {
    const known = this.#secrets.get(id);
    if (known !== undefined) {
      if (this.#queue.has(known))
        known.priority = Math.min(known.priority, priority) as PriorityLevel;
      if (known.state.state !== "initializing") this.#options.onChange(id, known.state);
      return;
    }
    const identity = parseSpiffeId(id);
    if (identity === undefined) throw new Error(`not a SPIFFE identity: ${id}`);
    const secret: Secret = {
      id,
      identity,
      state: { state: "initializing" },
      priority,
      queuedAtMs: 0,
      fetching: false,
      failures: 0,
      timer: undefined,
    };
    this.#secrets.set(id, secret);
    this.#enqueue(secret, priority);
  }

  /** The last local workload with this identity is gone. */
  forget(id: SpiffeId): void {
    const secret = this.#secrets.get(id);
    if (secret === undefined) return;
    secret.timer?.cancel();
    this.#queue.delete(secret);
    this.#secrets.delete(id);
    this.#options.onChange(id, undefined);
  }

  close(): void {
    for (const { timer } of this.#secrets.values()) timer?.cancel();
    this.#queue.clear();
    this.#secrets.clear();
    this.#options.ca.close();
  }

  #enqueue(secret: Secret, priority: PriorityLevel): void {
    secret.priority = priority;
    secret.queuedAtMs = this.#options.clock.monotonicMs();
    this.#queue.add(secret);
    this.#pump();
  }

  #pump(): void {
    while (this.#fetches < CONCURRENT_FETCHES_MAX && this.#queue.size > 0) {
      const next = this.#first();
      this.#queue.delete(next);
      this.#fetches++;
      void this.#fetch(next).finally(() => {
        this.#fetches--;
        this.#pump();
      });
    }
  }

  #first(): Secret {
    let first: Secret | undefined;
    for (const secret of this.#queue) {
      if (first === undefined || secret.priority < first.priority) first = secret;
      else if (secret.priority === first.priority && secret.queuedAtMs < first.queuedAtMs)
        first = secret;
    }
    return first!;
  }

  async #fetch(secret: Secret): Promise<void> {
    try {
      const certificate = await this.#options.ca.fetch(secret.identity);
      if (this.#secrets.get(secret.id) === secret) this.#onFetched(secret, certificate);
    } catch (error) {
      if (this.#secrets.get(secret.id) === secret) this.#onFailed(secret, errorMessage(error));
    }
  }

  #onFetched(secret: Secret, certificate: WorkloadCertificate): void {
    secret.failures = 0;
    secret.state = { state: "available", certificate };
    const { notBeforeMs, notAfterMs } = certificate;
    const halfLifeMs = notBeforeMs + (notAfterMs - notBeforeMs) / 2;
    const delayMs = halfLifeMs - this.#options.clock.nowMs();
    this.#schedule(secret, Math.max(RENEWAL_DELAY_MIN_MS, delayMs));
    this.#options.onChange(secret.id, secret.state);
  }

  /** A certificate that still holds is kept; the next try comes before it expires. */
  #onFailed(secret: Secret, reason: string): void {
    const backoffMs = Math.min(BACKOFF_FIRST_MS * 2 ** secret.failures++, BACKOFF_MAX_MS);
    const jitter = 1 + (this.#options.random() * 2 - 1) * BACKOFF_JITTER;
    let delayMs = backoffMs * jitter;
    const { state } = secret;
    const leftMs =
      state.state === "available" ? state.certificate.notAfterMs - this.#options.clock.nowMs() : 0;
    if (leftMs > 0) delayMs = Math.min(delayMs, leftMs);
    else {
      secret.state = { state: "unavailable", reason };
      this.#options.onChange(secret.id, secret.state);
    }
    this.#schedule(secret, delayMs);
  }

  #schedule(secret: Secret, delayMs: number): void {
    secret.timer?.cancel();
    secret.timer = this.#options.clock.after(Math.max(0, delayMs), () =>
      this.#enqueue(secret, Priority.background),
    );
  }
}
