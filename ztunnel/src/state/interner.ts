// One copy of what recurs over thousands of workloads: names, places, port maps. Whoever changed one
// would change all, so only readonly values are interned.

/** Forgotten when full, as interning is only a saving: what is in use stays in use. */
export const INTERNED_MAX = 20_000;

export class Interner<T> {
  readonly #known = new Map<string, T>();

  /** The value of `key`; `make` makes the first. Equal keys must stand for equal values. */
  get(key: string, make: () => T): T {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    if (this.#known.size >= INTERNED_MAX) this.#known.clear();
    const made = make();
    this.#known.set(key, made);
    return made;
  }
}

/** One key for a list of texts, whatever characters they have. */
export function keyOf(texts: readonly string[]): string {
  let key = "";
  for (const text of texts) key += `${text.length}:${text}`;
  return key;
}
