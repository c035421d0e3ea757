// HPACK encoding, the simple way: static table indices where the whole field or its name is there,
// literals without indexing otherwise. Needs no state, so a block can be encoded in any order.

import { type HeaderField, STATIC_TABLE } from "./hpack-table.ts";

interface StaticName {
  readonly index: number;
  readonly indexOfValue: Map<string, number>;
}

const STATIC_NAMES = new Map<string, StaticName>();
STATIC_TABLE.forEach(({ name, value }, i) => {
  const entry = STATIC_NAMES.getOrInsertComputed(name, () => ({
    index: i + 1,
    indexOfValue: new Map<string, number>(),
  }));
  entry.indexOfValue.set(value, i + 1);
});

/** Encodes a header list; names must be lower case, text Latin-1. */
export function hpackEncode(fields: readonly HeaderField[]): Buffer {
  let bytes = 0;
  for (const { name, value } of fields) bytes += name.length + value.length + 16;
  const out = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (const field of fields) at = encodeField(out, at, field);
  return out.subarray(0, at);
}

function encodeField(out: Buffer, at: number, { name, value }: HeaderField): number {
  const known = STATIC_NAMES.get(name);
  const whole = known?.indexOfValue.get(value);
  if (whole !== undefined) return encodeInteger(out, at, 0x80, 7, whole);
  const index = known?.index ?? 0;
  let end = encodeInteger(out, at, 0x00, 4, index);
  if (index === 0) end = encodeString(out, end, name);
  return encodeString(out, end, value);
}

function encodeString(out: Buffer, at: number, text: string): number {
  const start = encodeInteger(out, at, 0x00, 7, text.length);
  return start + out.write(text, start, "latin1");
}

function encodeInteger(
  out: Buffer,
  at: number,
  pattern: number,
  prefixBits: number,
  value: number,
): number {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) {
    out[at] = pattern | value;
    return at + 1;
  }
  out[at++] = pattern | mask;
  let rest = value - mask;
  for (; rest >= 128; rest = Math.floor(rest / 128)) out[at++] = (rest & 0x7f) | 0x80;
  out[at++] = rest;
  return at;
}
