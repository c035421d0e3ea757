// What a load saw so far: counts, the times without an answer, and rounds in which everything answered.

import type { Cut, Gap, Outcome } from "./options.ts";

/** A busy machine may take this long for one request although nothing is wrong. */
const GAP_MIN_MS = 300;
const FAILURES_TOLD = 10;

export class Tally {
  readonly #answeredMs: Map<string, number>;
  /** Who has not answered in this round. */
  readonly #silent = new Set<string>();
  readonly #sources: readonly string[];
  readonly #gaps: Gap[] = [];
  readonly #gapMs: Record<string, number> = {};
  readonly #failures: string[] = [];
  readonly #cuts: Cut[] = [];
  #sent = 0;
  #answered = 0;
  #failed = 0;
  #wrong = 0;
  #talks = 0;

  /** `sources` name everything that takes part in a round. */
  constructor(hosts: readonly string[], sources: readonly string[]) {
    this.#answeredMs = new Map(hosts.map((host) => [host, Date.now()]));
    this.#sources = sources;
    this.nextRound();
  }

  /** Whether everything has answered since the last one began. */
  get roundOver(): boolean {
    return this.#silent.size === 0;
  }

  nextRound(): void {
    for (const source of this.#sources) this.#silent.add(source);
  }

  get sent(): number {
    return this.#sent;
  }

  /** Requests that are neither answered nor failed. */
  get waiting(): number {
    return this.#sent - this.#answered - this.#failed;
  }

  request(): void {
    this.#sent++;
  }

  answer(host: string, text: string): void {
    if (!text.startsWith(`${host} sees`)) {
      this.#wrong++;
      return this.failure(host, `answered ${text}`);
    }
    this.#answered++;
    this.#silent.delete(host);
    this.#endGap(host);
  }

  failure(host: string, why: string): void {
    if (this.#failed++ >= FAILURES_TOLD) return;
    this.#failures.push(`${new Date().toISOString()} request to ${host}: ${why}`);
  }

  talk(source: string): void {
    this.#talks++;
    this.#silent.delete(source);
  }

  cut(cut: Omit<Cut, "atMs">): void {
    this.#cuts.push({ ...cut, atMs: Date.now() });
  }

  outcome(): Outcome {
    for (const host of this.#answeredMs.keys()) this.#endGap(host);
    return {
      sent: this.#sent,
      failed: this.#failed,
      wrong: this.#wrong,
      failures: this.#failures,
      talks: this.#talks,
      cuts: this.#cuts,
      gapMs: this.#gapMs,
      gaps: this.#gaps,
    };
  }

  #endGap(host: string): void {
    const fromMs = this.#answeredMs.get(host)!;
    const toMs = Date.now();
    this.#gapMs[host] = Math.max(this.#gapMs[host] ?? 0, toMs - fromMs);
    if (toMs - fromMs > GAP_MIN_MS) this.#gaps.push({ host, fromMs, toMs });
    this.#answeredMs.set(host, toMs);
  }
}
