// One BPF map by its descriptor: elements in and out as bytes. Knows sizes, not meanings.

import { bpf, Command, newAttr } from "./bpf-call.ts";
import { addressOf, closeFd, SystemError } from "./libc.ts";

/** The shape of a map, as bpf-layout.gen.ts lists it. */
export interface MapShape {
  readonly keyBytes: number;
  readonly valueBytes: number;
}

export class BpfMap {
  readonly name: string;
  readonly fd: number;
  readonly #key: Buffer;
  readonly #value: Buffer;
  readonly #attr = newAttr();

  /** Takes over `fd`. `copies` is the number of CPUs for per-CPU maps, whose values come padded to 8. */
  constructor(name: string, fd: number, shape: MapShape, copies = 1) {
    this.name = name;
    this.fd = fd;
    this.#key = Buffer.alloc(shape.keyBytes);
    this.#value = Buffer.alloc(shape.valueBytes * copies);
    this.#attr.writeUInt32LE(fd, 0);
    this.#attr.writeBigUInt64LE(addressOf(this.#key), 8);
  }

  /** A copy of the value; undefined when the key is absent. */
  get(key: Uint8Array): Buffer | undefined {
    this.#point(key);
    return this.#unlessAbsent(Command.MAP_LOOKUP_ELEM) ? Buffer.from(this.#value) : undefined;
  }

  /** Writes an element, new or not. Throws SystemError: E2BIG when the map is full. */
  set(key: Uint8Array, value: Uint8Array): void {
    this.#point(key);
    this.#value.set(value);
    bpf(Command.MAP_UPDATE_ELEM, this.name, this.#attr);
  }

  /** False when it was not there. */
  delete(key: Uint8Array): boolean {
    this.#key.set(key);
    this.#attr.writeBigUInt64LE(0n, 16);
    return this.#unlessAbsent(Command.MAP_DELETE_ELEM);
  }

  /** All keys as of now, in no order; at most `max`, so that a map that changes meanwhile ends. */
  keys(max: number): Buffer[] {
    const keys: Buffer[] = [];
    const attr = newAttr();
    const next = Buffer.alloc(this.#key.length);
    attr.writeUInt32LE(this.fd, 0);
    attr.writeBigUInt64LE(addressOf(next), 16);
    while (keys.length < max) {
      try {
        bpf(Command.MAP_GET_NEXT_KEY, this.name, attr);
      } catch (error) {
        if (isAbsent(error)) break;
        throw error;
      }
      keys.push(Buffer.from(next));
      this.#key.set(next);
      attr.writeBigUInt64LE(addressOf(this.#key), 8);
    }
    return keys;
  }

  /**
   * All elements of a hash, as of some moment of the call; at most `max`. Unlike `keys` it does not begin
   * again when an element goes away meanwhile. Throws SystemError: EINVAL before Linux 5.6.
   */
  entries(max: number): (readonly [key: Buffer, value: Buffer])[] {
    const entries: (readonly [Buffer, Buffer])[] = [];
    const batch = new Batch(this.#key.length, this.#value.length);
    let ended = false;
    while (!ended && entries.length < max) ended = batch.read(this.name, this.fd, entries);
    return entries.slice(0, max);
  }

  close(): void {
    closeFd(this.fd);
  }

  #point(key: Uint8Array): void {
    this.#key.set(key);
    this.#attr.writeBigUInt64LE(addressOf(this.#value), 16);
  }

  #unlessAbsent(command: typeof Command.MAP_LOOKUP_ELEM | typeof Command.MAP_DELETE_ELEM): boolean {
    return unlessAbsent(() => bpf(command, this.name, this.#attr));
  }
}

/** Elements asked for in one call; a bucket of the kernel's table must fit. */
const BATCH_ENTRIES = 1024;

/** Reads a hash on from where the call before ended. */
class Batch {
  readonly #keys: Buffer;
  readonly #values: Buffer;
  readonly #position = Buffer.alloc(8);
  readonly #attr = newAttr();

  constructor(keyBytes: number, valueBytes: number) {
    this.#keys = Buffer.alloc(keyBytes * BATCH_ENTRIES);
    this.#values = Buffer.alloc(valueBytes * BATCH_ENTRIES);
    this.#attr.writeBigUInt64LE(addressOf(this.#position), 8);
    this.#attr.writeBigUInt64LE(addressOf(this.#keys), 16);
    this.#attr.writeBigUInt64LE(addressOf(this.#values), 24);
  }

  /** Adds the next elements; true when those were the last. */
  read(name: string, fd: number, to: (readonly [Buffer, Buffer])[]): boolean {
    this.#attr.writeUInt32LE(BATCH_ENTRIES, 32);
    this.#attr.writeUInt32LE(fd, 36);
    const ended = !unlessAbsent(() => bpf(Command.MAP_LOOKUP_BATCH, name, this.#attr));
    const count = this.#attr.readUInt32LE(32);
    const [keyBytes, valueBytes] = [this.#keys, this.#values].map(
      ({ length }) => length / BATCH_ENTRIES,
    ) as [number, number];
    for (let i = 0; i < count; i++) {
      const key = this.#keys.subarray(i * keyBytes, (i + 1) * keyBytes);
      const value = this.#values.subarray(i * valueBytes, (i + 1) * valueBytes);
      to.push([Buffer.from(key), Buffer.from(value)]);
    }
    this.#attr.writeBigUInt64LE(addressOf(this.#position), 0);
    return ended;
  }
}

/** False when the kernel says that there is nothing, or nothing more. */
function unlessAbsent(action: () => void): boolean {
  try {
    action();
    return true;
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}

function isAbsent(error: unknown): boolean {
  return error instanceof SystemError && error.code === "ENOENT";
}

/** Gives an object (map, program, link) a name in bpffs that outlives the process. Throws EEXIST. */
export function pinObject(fd: number, path: string): void {
  const name = cString(path);
  const attr = newAttr();
  attr.writeBigUInt64LE(addressOf(name), 0);
  attr.writeUInt32LE(fd, 8);
  bpf(Command.OBJ_PIN, path, attr);
}

/** The descriptor of a pinned object. Throws SystemError: ENOENT when nothing is pinned there. */
export function openPinned(path: string): number {
  const name = cString(path);
  const attr = newAttr();
  attr.writeBigUInt64LE(addressOf(name), 0);
  return bpf(Command.OBJ_GET, path, attr);
}

function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}
