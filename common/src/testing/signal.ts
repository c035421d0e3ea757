// Waiting in tests for a condition instead of a time.

/** Something that changes, and a promise for each condition on it. */
export class Signal {
  readonly #waiters = new Set<{ readonly holds: () => boolean; readonly resolve: () => void }>();

  /** Resolves once `holds()` is true at a change, or now. */
  until(holds: () => boolean): Promise<void> {
    if (holds()) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.add({ holds, resolve }));
  }

  changed(): void {
    for (const waiter of this.#waiters) {
      if (!waiter.holds()) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  }
}
