// Who has which slot, in the memory that the programs use: they count direct connections there, atomically.
// Nothing of it is written back as it was read: that would take away what they had counted in between.

import { u32 } from "./bpf-bytes.ts";
import { CONSTANTS, STRUCTS } from "./bpf-layout.gen.ts";
import type { BpfMap } from "./bpf-map.ts";
import { mapMemory, type MappedMemory, pageBytes } from "./libc.ts";

const { occupant: LAYOUT } = STRUCTS;
const WORD_BYTES = 4;

export class Occupants implements Disposable {
  readonly #map: BpfMap;
  #memory: MappedMemory | undefined;

  /** The map stays the caller's. Its memory is mapped when it is first written. */
  constructor(map: BpfMap) {
    this.#map = map;
  }

  /** A copy of the slot's `struct occupant`. Throws SystemError. */
  get(slot: number): Buffer {
    return this.#map.get(u32(slot))!;
  }

  /** Writes what `edit` changes of the slot's `struct occupant`, and nothing else. Throws SystemError. */
  update(slot: number, edit: (value: Buffer) => void): void {
    const before = this.get(slot);
    const value = Buffer.from(before);
    edit(value);
    if (value.equals(before)) return;
    const words = new Int32Array(this.#bytes(), slot * LAYOUT.bytes, LAYOUT.bytes / WORD_BYTES);
    for (let index = 0; index < words.length; index++) {
      const word = value.readInt32LE(index * WORD_BYTES);
      if (word !== before.readInt32LE(index * WORD_BYTES)) Atomics.store(words, index, word);
    }
  }

  /** The pod has one direct connection less, if it is still the one with this network namespace. */
  giveFlowBack(slot: number, netns: bigint): void {
    const at = slot * LAYOUT.bytes;
    const [owner] = new BigUint64Array(this.#bytes(), at + LAYOUT.netns, 1);
    if (owner !== netns) return;
    Atomics.sub(new Int32Array(this.#bytes(), at + LAYOUT.flows, 1), 0, 1);
  }

  [Symbol.dispose](): void {
    this.#memory?.unmap();
    this.#memory = undefined;
  }

  #bytes(): ArrayBuffer {
    const page = pageBytes();
    const length = Math.ceil((CONSTANTS.SLOTS_MAX * LAYOUT.bytes) / page) * page;
    this.#memory ??= mapMemory(this.#map.fd, 0, length, "write");
    return this.#memory.bytes;
  }
}
