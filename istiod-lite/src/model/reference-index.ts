// Who refers to what, both by key: the slices of a service, the claims to a host name. The things referred
// to need not exist.

export class ReferenceIndex {
  readonly #referrers = new Map<string, Set<string>>();

  add(target: string, referrer: string): void {
    this.#referrers.getOrInsertComputed(target, () => new Set<string>()).add(referrer);
  }

  delete(target: string, referrer: string): void {
    const referrers = this.#referrers.get(target);
    referrers?.delete(referrer);
    if (referrers?.size === 0) this.#referrers.delete(target);
  }

  of(target: string): Iterable<string> {
    return this.#referrers.get(target) ?? [];
  }
}
