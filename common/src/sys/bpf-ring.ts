// A BPF ring buffer (linux/bpf.h, BPF_MAP_TYPE_RINGBUF), read in place: one page tells how far we have read,
// the next how far the kernel has written, and then come the data, mapped twice so that no record is cut.

import { assert } from "../process/assert.ts";
import { mapMemory, type MappedMemory, pageBytes } from "./libc.ts";

/** Of every record: its length with two flags, and a field that is the kernel's own. */
const HEADER_BYTES = 8;
const BUSY = 0x8000_0000;
const DISCARDED = 0x4000_0000;

export class BpfRing implements Disposable {
  /** Where records are: mapped twice, so that none is cut. The kernel's memory, but for what is being read. */
  readonly data: Buffer;
  readonly #consumerPage: MappedMemory;
  readonly #producerPages: MappedMemory;
  readonly #consumed: BigUint64Array;
  readonly #produced: BigUint64Array;
  readonly #headers: Uint32Array;
  readonly #bytes: number;
  #position: number;

  /** `bytes` is the map's size. One reader at a time: what it read is gone for all. The descriptor stays the caller's, and may be closed. Throws SystemError. */
  constructor(fd: number, bytes: number) {
    const page = pageBytes();
    assert(bytes % page === 0, "a ring is whole pages");
    this.#consumerPage = mapMemory(fd, 0, page, "write");
    this.#producerPages = mapMemory(fd, page, page + 2 * bytes, "read");
    this.#consumed = new BigUint64Array(this.#consumerPage.bytes, 0, 1);
    this.#produced = new BigUint64Array(this.#producerPages.bytes, 0, 1);
    this.#headers = new Uint32Array(this.#producerPages.bytes, page, bytes / 2);
    this.data = Buffer.from(this.#producerPages.bytes, page, 2 * bytes);
    this.#bytes = bytes;
    this.#position = Number(Atomics.load(this.#consumed, 0));
  }

  /**
   * Tells `take` where in `data` each finished record begins, at most `max` of them; returns how many. When
   * this returns or `take` throws, what was told is the kernel's memory again.
   */
  read(take: (at: number) => void, max: number): number {
    const until = Number(Atomics.load(this.#produced, 0));
    let taken = 0;
    try {
      while (taken < max && this.#position < until) {
        const at = this.#position % this.#bytes;
        const header = Atomics.load(this.#headers, at / 4);
        if ((header & BUSY) !== 0) break;
        const length = header & ~(BUSY | DISCARDED);
        this.#position += (HEADER_BYTES + length + 7) & ~7;
        taken++;
        if ((header & DISCARDED) === 0) take(at + HEADER_BYTES);
      }
    } finally {
      Atomics.store(this.#consumed, 0, BigInt(this.#position));
    }
    return taken;
  }

  [Symbol.dispose](): void {
    this.#consumerPage.unmap();
    this.#producerPages.unmap();
  }
}
