// Inputs for fuzz targets, all drawn from one seed: random bytes, corpus entries, and mutations of
// both (flips, cuts, repeats, splices, interesting values). Keeps a small pool of past inputs.

const POOL_MAX = 256;
const BYTES_MAX = 4096;
const INTERESTING = [0, 1, 9, 10, 13, 32, 44, 58, 61, 127, 128, 255];

/** mulberry32: small, fast, good enough to spread inputs; never for secrets. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class InputSource {
  readonly #random: () => number;
  readonly #corpus: readonly Uint8Array[];
  readonly #pool: Uint8Array[];

  constructor(seed: number, corpus: readonly Uint8Array[]) {
    this.#random = seededRandom(seed);
    this.#corpus = corpus;
    this.#pool = [...corpus];
  }

  next(): Uint8Array {
    const data = this.#make().slice(0, BYTES_MAX);
    if (this.#pool.length < POOL_MAX) this.#pool.push(data);
    else this.#pool[this.#below(POOL_MAX)] = data;
    return data;
  }

  #make(): Uint8Array {
    const choice = this.#random();
    if (this.#pool.length === 0 || choice < 0.15) return this.#randomBytes(this.#below(300));
    if (this.#corpus.length > 0 && choice < 0.6) return this.#mutate(this.#pick(this.#corpus));
    return this.#mutate(this.#pick(this.#pool));
  }

  #mutate(base: Uint8Array): Uint8Array {
    let data: Uint8Array = Uint8Array.from(base);
    for (let rounds = 1 + this.#below(4); rounds > 0; rounds--) data = this.#mutateOnce(data);
    return data;
  }

  #mutateOnce(data: Uint8Array): Uint8Array {
    const at = this.#below(data.length + 1);
    const end = Math.min(data.length, at + this.#below(16));
    switch (this.#below(6)) {
      case 0:
        if (at < data.length) data[at] = data[at]! ^ (1 << this.#below(8));
        return data;
      case 1:
        if (at < data.length) data[at] = INTERESTING[this.#below(INTERESTING.length)]!;
        return data;
      case 2:
        return join(data.subarray(0, at), data.subarray(end));
      case 3:
        return join(data.subarray(0, at), this.#randomBytes(this.#below(8)), data.subarray(at));
      case 4:
        return join(data.subarray(0, end), data.subarray(at));
      default:
        return join(data.subarray(0, at), this.#pick(this.#pool).subarray(this.#below(64)));
    }
  }

  #randomBytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.#below(256));
  }

  #pick(list: readonly Uint8Array[]): Uint8Array {
    return list[this.#below(list.length)]!;
  }

  #below(bound: number): number {
    return Math.floor(this.#random() * bound);
  }
}

function join(...parts: Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}
