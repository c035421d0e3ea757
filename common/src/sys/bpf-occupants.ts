// Counting direct connections together with the programs: what they count atomically, user space does in the
// same memory. A value that was read and written back would take away what they had counted in between.

import { CONSTANTS, STRUCTS } from "./bpf-layout.gen.ts";
import { mapMemory, type MappedMemory, pageBytes } from "./libc.ts";

const { occupant: LAYOUT } = STRUCTS;

export class Occupants implements Disposable {
  readonly #memory: MappedMemory;
  readonly #netns: BigUint64Array;
  readonly #counts: Int32Array;

  /** Of the map's descriptor, which stays the caller's. Throws SystemError. */
  constructor(fd: number) {
    const page = pageBytes();
    const length = Math.ceil((CONSTANTS.SLOTS_MAX * LAYOUT.bytes) / page) * page;
    this.#memory = mapMemory(fd, 0, length, "write");
    this.#netns = new BigUint64Array(this.#memory.bytes);
    this.#counts = new Int32Array(this.#memory.bytes);
  }

  /** The pod has one direct connection less, if it is still the one with this network namespace. */
  giveFlowBack(slot: number, netns: bigint): void {
    const at = slot * LAYOUT.bytes;
    if (Atomics.load(this.#netns, (at + LAYOUT.netns) / 8) !== netns) return;
    Atomics.sub(this.#counts, (at + LAYOUT.flows) / 4, 1);
  }

  [Symbol.dispose](): void {
    this.#memory.unmap();
  }
}
