// Views of one Buffer's beginning. To make a view costs as much as a call into OpenSSL, and the same few
// lengths come again and again: they get the same view again.

/** Views that are kept; of two lengths with the same remainder the later one. */
const KEPT = 256;

export class Prefixes {
  readonly #buffer: Buffer;
  readonly #kept = Array.from<Buffer | undefined>({ length: KEPT });

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  /** The first `length` bytes: the Buffer's own memory, not a copy. */
  of(length: number): Buffer {
    const at = length % KEPT;
    const kept = this.#kept[at];
    if (kept?.length === length) return kept;
    return (this.#kept[at] = this.#buffer.subarray(0, length));
  }
}
