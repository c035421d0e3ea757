// Reads DER (X.690) in place: tag, length, content, without building a tree. For structures that may be
// large (a revocation list has an entry per certificate); small ones are read by der.ts.

export const Tag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectId: 0x06,
  enumerated: 0x0a,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
} as const;

/** Lengths of more bytes than this would be beyond any file we read. */
const LENGTH_BYTES_MAX = 4;

/** One element; offsets are into the reader's bytes. */
export interface Element {
  readonly tag: number;
  readonly start: number;
  readonly contentStart: number;
  readonly end: number;
}

/** A cursor over the elements of `bytes`. Every method throws an Error on malformed input. */
export class DerReader {
  readonly bytes: Buffer;
  readonly #end: number;
  #at: number;

  constructor(bytes: Buffer, start = 0, end = bytes.length) {
    this.bytes = bytes;
    this.#at = start;
    this.#end = end;
  }

  get done(): boolean {
    return this.#at >= this.#end;
  }

  /** The next element's tag; undefined at the end. */
  get nextTag(): number | undefined {
    return this.done ? undefined : this.bytes[this.#at];
  }

  /** The next element, which must have this tag when one is given. */
  read(tag?: number): Element {
    const start = this.#at;
    const found = this.nextTag;
    if (found === undefined) throw new Error("DER ends too early");
    if (tag !== undefined && found !== tag)
      throw new Error(`DER: tag 0x${found.toString(16)} where 0x${tag.toString(16)} is expected`);
    if ((found & 0x1f) === 0x1f) throw new Error("DER: multi-byte tags are not used here");
    this.#at++;
    const length = this.#length();
    const contentStart = this.#at;
    const end = contentStart + length;
    if (end > this.#end) throw new Error("DER: an element is longer than what holds it");
    this.#at = end;
    return { tag: found, start, contentStart, end };
  }

  /** A reader of what the next element holds. */
  enter(tag: number): DerReader {
    return this.inside(this.read(tag));
  }

  inside({ contentStart, end }: Element): DerReader {
    return new DerReader(this.bytes, contentStart, end);
  }

  content({ contentStart, end }: Element): Buffer {
    return this.bytes.subarray(contentStart, end);
  }

  /** The element with its tag and length. */
  whole({ start, end }: Element): Buffer {
    return this.bytes.subarray(start, end);
  }

  #length(): number {
    const first = this.bytes[this.#at++];
    if (first === undefined) throw new Error("DER ends too early");
    if (first < 0x80) return first;
    const count = first & 0x7f;
    if (count === 0 || count > LENGTH_BYTES_MAX || this.#at + count > this.#end)
      throw new Error("DER: malformed length");
    const length = this.bytes.readUIntBE(this.#at, count);
    this.#at += count;
    if (length < 0x80) throw new Error("DER: a short length is written long");
    return length;
  }
}

/** An INTEGER's bytes as hexadecimal without leading zeros: equal numbers have equal text. */
export function integerHex(content: Buffer): string {
  let at = 0;
  while (at < content.length - 1 && content[at] === 0) at++;
  const hex = content.toString("hex", at);
  return hex.length > 1 && hex[0] === "0" ? hex.slice(1) : hex;
}

/** The same for hexadecimal text of any case, such as Node's serialNumber. */
export function trimHex(hex: string): string {
  return hex.toLowerCase().replace(/^0+(?=.)/, "");
}
