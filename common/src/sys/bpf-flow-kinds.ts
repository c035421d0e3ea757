// Numbers for kinds of connections, found by what the kernel wrote of one: who calls, whom, by which name. No
// string is made of it, as most of what ends is of a kind that has ended before.

import { STRUCTS } from "./bpf-layout.gen.ts";

/** Kinds that are remembered at once; then all are forgotten, and numbered again as they come. */
export const KINDS_MAX = 4096;

const { endedFlow: LAYOUT, flow: FLOW, flowKey: KEY, endpoint, address } = STRUCTS;

/** What makes a kind, as places of 32-bit words in a record; of the one with both ports, the destination's. */
const PARTIES = [
  ...words(LAYOUT.flow + FLOW.netns, 8),
  ...words(LAYOUT.flow + FLOW.slot, 4),
  ...words(LAYOUT.flow + FLOW.service, endpoint.bytes),
  ...words(LAYOUT.key + KEY.destination, address.bytes),
];
const PORTS = (LAYOUT.key + KEY.sourcePort) / 4;

interface Kind {
  readonly parties: Uint32Array;
  readonly port: number;
  readonly number: number;
  /** Another one with the same hash. */
  readonly next: Kind | undefined;
}

export class KindNumbers {
  readonly #byHash = new Map<number, Kind>();
  #size = 0;
  #last = 0;

  /** The number of the record that begins at a word; never one that another kind has, or had. */
  of(record: Uint32Array, at: number): number {
    const hash = hashOf(record, at);
    const first = this.#byHash.get(hash);
    for (let kind = first; kind !== undefined; kind = kind.next) {
      if (isOf(kind, record, at)) return kind.number;
    }
    return this.#add(hash, first, record, at);
  }

  #add(hash: number, next: Kind | undefined, record: Uint32Array, at: number): number {
    const isFull = this.#size >= KINDS_MAX;
    if (isFull) {
      this.#byHash.clear();
      this.#size = 0;
    }
    const parties = Uint32Array.from(PARTIES, (offset) => record[at + offset]!);
    const kind: Kind = {
      parties,
      port: portOf(record, at),
      number: ++this.#last,
      next: isFull ? undefined : next,
    };
    this.#byHash.set(hash, kind);
    this.#size++;
    return kind.number;
  }
}

function words(offset: number, bytes: number): number[] {
  return Array.from({ length: bytes / 4 }, (_, i) => offset / 4 + i);
}

/** Ports are 16 bits each, the destination's behind the source's, in a little-endian word. */
function portOf(record: Uint32Array, at: number): number {
  return record[at + PORTS]! >>> 16;
}

/** As multiplicative hashes go: each word moves the upper half, which is folded down. */
function hashOf(record: Uint32Array, at: number): number {
  let hash = portOf(record, at);
  for (let i = 0; i < PARTIES.length; i++) {
    hash = Math.imul(hash ^ record[at + PARTIES[i]!]!, 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash;
}

function isOf({ parties, port }: Kind, record: Uint32Array, at: number): boolean {
  if (port !== portOf(record, at)) return false;
  for (let i = 0; i < PARTIES.length; i++) {
    if (parties[i] !== record[at + PARTIES[i]!]) return false;
  }
  return true;
}
