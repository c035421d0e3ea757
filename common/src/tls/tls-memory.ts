// The memory that a thread's TLS sessions read from and write to, empty again after each use. Nothing is
// copied into it or out of it: OpenSSL reads what the socket has read where that lies, and what it has
// written is sent from where it wrote it.

import { Prefixes } from "../net/prefixes.ts";
import { readBuffer } from "../net/scratch.ts";
import { assert } from "../process/assert.ts";
import {
  BIO_C_SET_BUF_MEM,
  bioControl,
  bioMemory,
  bioNew,
  bioNewPair,
  bioNextRead,
  memoryAt,
  type Pointer,
  stableAddress,
  stableBuffer,
} from "../sys/libssl.ts";

/** `struct buf_mem_st` of include/openssl/buffer.h, in 32-bit words: length, data, max, flags. */
const BUF_MEM = { bytes: 32, length: 0, data: 2, max: 4 } as const;
const WORD = 2 ** 32;
const NOT_OWNED = 0;
const NOTHING = Buffer.alloc(0);
const READ_ADDRESS = stableAddress(readBuffer);

export class TlsMemory {
  /** What OpenSSL reads from, and writes to. */
  readonly incoming: Pointer;
  readonly outgoing: Pointer;
  readonly #source: Pointer;
  readonly #ringBytes: number;
  /** Made when the ring is first read: its address is told then. */
  #written: Prefixes | undefined;
  readonly #told = stableBuffer(8);
  readonly #toldAddress = stableAddress(this.#told);
  readonly #shown = stableBuffer(BUF_MEM.bytes);
  readonly #shownWords = new Uint32Array(this.#shown.buffer);
  readonly #shownAddress = stableAddress(this.#shown);
  /** For bytes that are not in the read buffer; grows to the most that were fed. */
  #staged = stableBuffer(0);

  /** `ringBytes`: what OpenSSL can write before it is taken. It lives as long as the thread. */
  constructor(ringBytes: number) {
    this.incoming = bioNew(bioMemory()) as Pointer;
    const ends = stableBuffer(16);
    const address = stableAddress(ends);
    const made = bioNewPair(address, ringBytes, address + 8, ringBytes) as number;
    assert(made === 1, "OpenSSL has memory for ciphertext");
    this.#ringBytes = ringBytes;
    this.outgoing = Number(ends.readBigUInt64LE(0));
    this.#source = Number(ends.readBigUInt64LE(8));
  }

  /** Shows them to OpenSSL, which must read them before they are overwritten. */
  feed(bytes: Buffer): void {
    if (bytes.buffer === readBuffer.buffer) {
      return this.#show(READ_ADDRESS + bytes.byteOffset - readBuffer.byteOffset, bytes.length);
    }
    if (bytes.length > this.#staged.length) this.#staged = stableBuffer(bytes.length);
    this.#staged.set(bytes);
    this.#show(stableAddress(this.#staged), bytes.length);
  }

  /** Nothing of what was fed can be read any more. */
  empty(): void {
    this.#show(READ_ADDRESS, 0);
  }

  /** What OpenSSL has written, valid until it writes again; `ringBytes` at most. */
  take(): Buffer {
    const count = bioNextRead(this.#source, this.#toldAddress, this.#ringBytes) as number;
    if (count <= 0) return NOTHING;
    this.#written ??= this.#ring();
    return this.#written.of(count);
  }

  #show(address: Pointer, length: number): void {
    const words = this.#shownWords;
    words[BUF_MEM.length] = words[BUF_MEM.max] = length;
    words[BUF_MEM.data] = address % WORD;
    words[BUF_MEM.data + 1] = address / WORD;
    bioControl(this.incoming, BIO_C_SET_BUF_MEM, NOT_OWNED, this.#shownAddress);
  }

  /** Being read to its end each time, it always begins at its beginning. */
  #ring(): Prefixes {
    return new Prefixes(memoryAt(this.#told.readBigUInt64LE(), this.#ringBytes));
  }
}
