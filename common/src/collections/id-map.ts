// A map from small positive integers, such as stream ids, for entries that come and go thousands of
// times a second: see churn-set.ts for why not a Map. Open addressing with linear probing; a deletion
// moves later entries up instead of leaving a mark, so that the table never needs renewing.

/** Slots at first, a power of two: most HTTP/2 connections have but a few streams at once. */
const SLOTS_MIN = 8;
/** Spreads consecutive ids over the slots: 2^32 divided by the golden ratio (Knuth 6.4). */
const SPREAD = 0x9e3779b1;
/** No id: the slot is free. */
const FREE = 0;

export class IdMap<T> {
  #ids = new Int32Array(SLOTS_MIN);
  #items: (T | undefined)[] = new Array<T | undefined>(SLOTS_MIN).fill(undefined);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: number): T | undefined {
    return this.#items[this.#slotOf(id)];
  }

  /** `id` is from 1 to 2^31 - 1. */
  set(id: number, item: T): void {
    let slot = this.#slotOf(id);
    if (this.#ids[slot] === FREE) {
      if (++this.#size * 2 > this.#ids.length) {
        this.#grow();
        slot = this.#slotOf(id);
      }
      this.#ids[slot] = id;
    }
    this.#items[slot] = item;
  }

  delete(id: number): void {
    let gap = this.#slotOf(id);
    if (this.#ids[gap] === FREE) return;
    this.#size--;
    const mask = this.#ids.length - 1;
    for (let at = (gap + 1) & mask; this.#ids[at] !== FREE; at = (at + 1) & mask) {
      const home = this.#homeOf(this.#ids[at]!);
      if (((at - home) & mask) < ((at - gap) & mask)) continue;
      this.#ids[gap] = this.#ids[at]!;
      this.#items[gap] = this.#items[at];
      gap = at;
    }
    this.#ids[gap] = FREE;
    this.#items[gap] = undefined;
  }

  clear(): void {
    this.#ids.fill(FREE);
    this.#items.fill(undefined);
    this.#size = 0;
  }

  /** All items now, in no order: entries may come and go meanwhile. */
  values(): T[] {
    return this.#items.filter((item) => item !== undefined);
  }

  /** Where `id` is or, when it is not there, the free slot where it would be. */
  #slotOf(id: number): number {
    const mask = this.#ids.length - 1;
    let slot = this.#homeOf(id);
    while (this.#ids[slot] !== id && this.#ids[slot] !== FREE) slot = (slot + 1) & mask;
    return slot;
  }

  #homeOf(id: number): number {
    return (Math.imul(id, SPREAD) >>> 16) & (this.#ids.length - 1);
  }

  #grow(): void {
    const ids = this.#ids;
    const items = this.#items;
    this.#ids = new Int32Array(ids.length * 2);
    this.#items = new Array<T | undefined>(ids.length * 2).fill(undefined);
    for (let at = 0; at < ids.length; at++) {
      if (ids[at] === FREE) continue;
      const slot = this.#slotOf(ids[at]!);
      this.#ids[slot] = ids[at]!;
      this.#items[slot] = items[at];
    }
  }
}
