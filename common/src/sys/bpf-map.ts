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

  close(): void {
    closeFd(this.fd);
  }

  #point(key: Uint8Array): void {
    this.#key.set(key);
    this.#attr.writeBigUInt64LE(addressOf(this.#value), 16);
  }

  #unlessAbsent(command: typeof Command.MAP_LOOKUP_ELEM | typeof Command.MAP_DELETE_ELEM): boolean {
    try {
      bpf(command, this.name, this.#attr);
      return true;
    } catch (error) {
      if (isAbsent(error)) return false;
      throw error;
    }
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
