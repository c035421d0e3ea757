// Pushes to many clients, so many in one turn of the event loop: a change that concerns thousands of them
// leaves room for everything else the process does.

export interface Pushable {
  /** Sends what is due, if anything. */
  push(): void;
}

export class PushQueue<T extends Pushable> {
  readonly #perTurn: number;
  /** In order of arrival; a client that waits already keeps its place. */
  readonly #waiting = new Set<T>();
  #scheduled: NodeJS.Immediate | undefined;

  constructor(perTurn: number) {
    this.#perTurn = perTurn;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Pushes the first ones now, unless others wait, the rest in the turns that follow. */
  add(clients: Iterable<T>): void {
    for (const client of clients) this.#waiting.add(client);
    if (this.#scheduled === undefined) this.#turn();
  }

  forget(client: T): void {
    this.#waiting.delete(client);
  }

  close(): void {
    clearImmediate(this.#scheduled);
    this.#scheduled = undefined;
    this.#waiting.clear();
  }

  #turn(): void {
    this.#scheduled = undefined;
    let left = this.#perTurn;
    for (const client of this.#waiting) {
      if (left-- === 0) break;
      this.#waiting.delete(client);
      client.push();
    }
    if (this.#waiting.size > 0) this.#scheduled = setImmediate(() => this.#turn());
  }
}
