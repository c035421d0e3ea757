// HPACK decoding (RFC 7541 §3, §6): indexed fields, literals with and without indexing, dynamic table
// size updates, Huffman. State lives as long as the connection; any error is fatal to it.

import { DynamicTable, fieldBytes, type HeaderField } from "./hpack-table.ts";
import { huffmanDecode } from "./huffman.ts";
import { ConnectionError, ErrorCode } from "./protocol.ts";

/** Decoded fields, and whether the list went past the size bound (the block is decoded all the same). */
export interface HeaderBlock {
  readonly fields: readonly HeaderField[];
  readonly tooLarge: boolean;
}

/** Five bytes of continuation carry 35 bits: beyond that an integer is an attack. */
const INTEGER_BYTES_MAX = 5;

export class HpackDecoder {
  readonly #table: DynamicTable;
  readonly #tableBytesMax: number;
  readonly #listBytesMax: number;
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;

  /** `tableBytesMax` is what our SETTINGS_HEADER_TABLE_SIZE allows the peer. */
  constructor(tableBytesMax: number, listBytesMax: number) {
    this.#table = new DynamicTable(tableBytesMax);
    this.#tableBytesMax = tableBytesMax;
    this.#listBytesMax = listBytesMax;
  }

  /** Decodes one whole block. Throws ConnectionError COMPRESSION_ERROR. */
  decode(block: Buffer): HeaderBlock {
    this.#bytes = block;
    this.#at = 0;
    const fields: HeaderField[] = [];
    let listBytes = 0;
    while (this.#at < block.length) {
      const field = this.#next(fields.length === 0);
      if (field === undefined) continue;
      listBytes += fieldBytes(field);
      if (listBytes <= this.#listBytesMax) fields.push(field);
    }
    return { fields, tooLarge: listBytes > this.#listBytesMax };
  }

  /** One representation; undefined for a table size update, which may only lead the block. */
  #next(first: boolean): HeaderField | undefined {
    const byte = this.#bytes[this.#at]!;
    if (byte & 0x80) return this.#indexed(this.#integer(7));
    if (byte & 0x40) {
      const field = this.#literal(6);
      this.#table.add(field);
      return field;
    }
    if (byte & 0x20) return this.#resize(first);
    return this.#literal(4);
  }

  #indexed(index: number): HeaderField {
    const field = this.#table.get(index);
    if (index === 0 || field === undefined) throw broken(`index ${index} is not in the table`);
    return field;
  }

  #literal(prefixBits: number): HeaderField {
    const index = this.#integer(prefixBits);
    const name = index === 0 ? this.#string() : this.#indexed(index).name;
    return { name, value: this.#string() };
  }

  #resize(first: boolean): undefined {
    const bytes = this.#integer(5);
    if (!first) throw broken("table size update after a header field");
    if (bytes > this.#tableBytesMax)
      throw broken(`table size ${bytes} exceeds ${this.#tableBytesMax}`);
    this.#table.resize(bytes);
  }

  #integer(prefixBits: number): number {
    const mask = (1 << prefixBits) - 1;
    let value = this.#bytes[this.#at++]! & mask;
    if (value < mask) return value;
    for (let i = 0; i < INTEGER_BYTES_MAX; i++) {
      if (this.#at >= this.#bytes.length) throw broken("integer cut short");
      const byte = this.#bytes[this.#at++]!;
      value += (byte & 0x7f) * 2 ** (7 * i);
      if ((byte & 0x80) === 0) return value;
    }
    throw broken("integer too long");
  }

  #string(): string {
    if (this.#at >= this.#bytes.length) throw broken("string cut short");
    const huffman = (this.#bytes[this.#at]! & 0x80) !== 0;
    const length = this.#integer(7);
    const start = this.#at;
    const end = start + length;
    if (end > this.#bytes.length) throw broken("string cut short");
    this.#at = end;
    if (!huffman) return this.#bytes.toString("latin1", start, end);
    const text = huffmanDecode(this.#bytes, start, end);
    if (text === undefined) throw broken("invalid Huffman code");
    return text;
  }
}

function broken(message: string): ConnectionError {
  return new ConnectionError(ErrorCode.COMPRESSION_ERROR, `HPACK: ${message}`);
}
