// How many response bytes may be unacknowledged over all clients: peers that read slowly, or not at all,
// delay each other beyond it instead of growing our memory.

export class SendBudget {
  readonly #bytesMax: number;
  #used = 0;
  /** Retried in order of arrival when bytes come back. */
  #waiting = new Set<() => void>();

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get used(): number {
    return this.#used;
  }

  /** False when it must wait. One response alone always fits, however large. */
  tryTake(bytes: number): boolean {
    if (this.#used > 0 && this.#used + bytes > this.#bytesMax) return false;
    this.#used += bytes;
    return true;
  }

  giveBack(bytes: number): void {
    if (bytes === 0) return;
    this.#used -= bytes;
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const retry of waiting) retry();
  }

  /** Calls `retry` once when bytes came back; equal callbacks wait once. */
  wait(retry: () => void): void {
    this.#waiting.add(retry);
  }

  forget(retry: () => void): void {
    this.#waiting.delete(retry);
  }
}
