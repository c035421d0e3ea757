// A set for what comes and goes thousands of times a second. JavaScript's own Map and Set are not made
// for that: when V8 renews a table that comings and goings have used up, the old table keeps a link to
// the new one. Once such a dead table is in the old generation, all its successors and all that was
// ever in them live on until the next full collection, and every minor one copies that garbage.

/** An item's place in a ChurnSet. */
export interface Membership {
  /** Takes the item out. Idempotent. */
  leave(): void;
}

export class ChurnSet<T> {
  readonly #members: Member<T>[] = [];

  get size(): number {
    return this.#members.length;
  }

  /** Adds an item; one that is there already is then there twice. */
  add(item: T): Membership {
    const member = new Member(this.#members, item);
    this.#members.push(member);
    return member;
  }

  /** Those that are there now, in no order; they may leave while they are iterated. */
  [Symbol.iterator](): IterableIterator<T> {
    return this.#members.map(({ item }) => item).values();
  }
}

class Member<T> implements Membership {
  readonly item: T;
  /** Whom it is among; undefined once it has left. */
  #members: Member<T>[] | undefined;
  #position: number;

  constructor(members: Member<T>[], item: T) {
    this.item = item;
    this.#members = members;
    this.#position = members.length;
  }

  leave(): void {
    const members = this.#members;
    if (members === undefined) return;
    this.#members = undefined;
    const last = members.pop()!;
    if (last === this) return;
    members[this.#position] = last;
    last.#position = this.#position;
  }
}
