// A BPF ring buffer (linux/bpf.h, BPF_MAP_TYPE_RINGBUF), read in place: one page tells how far we have read,
// the next how far the kernel has written, and then come the data, mapped twice so that no record is cut.

import { assert } from "../process/assert.ts";
import { mapMemory, type MappedMemory, pageBytes } from "./libc.ts";

/** Of every record: its length with two flags, and a field that is the kernel's own. */
const HEADER_BYTES = 8;
const BUSY = 0x8000_0000;
const DISCARDED = 0x4000_0000;

export class BpfRing implements Disposable {
  readonly #consumerPage: MappedMemory;
  readonly #producerPages: MappedMemory;
  readonly #consumed: BigUint64Array;
  readonly #produced: BigUint64Array;
  readonly #headers: Uint32Array;
  readonly #data: Buffer;
  readonly #mask: number;
  #position: bigint;

  /** `bytes` is the map's size. One reader at a time: what it read is gone for all. The descriptor stays the caller's, and may be closed. Throws SystemError. */
  constructor(fd: number, bytes: number) {
    const page = pageBytes();
    assert(bytes % page === 0, "a ring is whole pages");
    this.#consumerPage = mapMemory(fd, 0, page, "write");
    this.#producerPages = mapMemory(fd, page, page + 2 * bytes, "read");
    this.#consumed = new BigUint64Array(this.#consumerPage.bytes, 0, 1);
    this.#produced = new BigUint64Array(this.#producerPages.bytes, 0, 1);
    this.#headers = new Uint32Array(this.#producerPages.bytes, page, bytes / 2);
    this.#data = Buffer.from(this.#producerPages.bytes, page, 2 * bytes);
    this.#mask = bytes - 1;
    this.#position = Atomics.load(this.#consumed, 0);
  }

  /**
   * Gives every finished record to `take`, which must not keep it: the memory is the kernel's again
   * afterwards. At most `max`; returns how many.
   */
  read(take: (record: Buffer) => void, max: number): number {
    let taken = 0;
    while (taken < max && this.#position < Atomics.load(this.#produced, 0)) {
      const at = Number(this.#position & BigInt(this.#mask));
      const header = Atomics.load(this.#headers, at / 4);
      if ((header & BUSY) !== 0) break;
      const length = header & ~(BUSY | DISCARDED);
      const begin = at + HEADER_BYTES;
      if ((header & DISCARDED) === 0) take(this.#data.subarray(begin, begin + length));
      this.#position += BigInt((HEADER_BYTES + length + 7) & ~7);
      Atomics.store(this.#consumed, 0, this.#position);
      taken++;
    }
    return taken;
  }

  [Symbol.dispose](): void {
    this.#consumerPage.unmap();
    this.#producerPages.unmap();
  }
}
