// Small helpers over node-forge's ASN.1 for the structures that X.509 and PKCS#10 are made of.
// forge encodes and parses; keys and signatures are node:crypto's.

import { createRequire } from "node:module";
import type forge from "node-forge";

export type Asn1 = forge.asn1.Asn1;

/** Only these two of forge's parts: all of them take 2 MiB of memory. */
const require = createRequire(import.meta.url);
const asn1 = require("node-forge/lib/asn1.js") as typeof forge.asn1;
const util = require("node-forge/lib/util.js") as typeof forge.util;

const { Class, Type } = asn1;

export function sequence(...items: Asn1[]): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.SEQUENCE, true, items);
}

export function set(...items: Asn1[]): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.SET, true, items);
}

export function objectId(oid: string): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.OID, false, asn1.oidToDer(oid).getBytes());
}

/** A non-negative INTEGER from big-endian bytes; a leading zero keeps it positive. */
export function integer(bytes: Uint8Array): Asn1 {
  const positive = bytes[0]! & 0x80 ? [0, ...bytes] : [...bytes];
  return asn1.create(Class.UNIVERSAL, Type.INTEGER, false, binary(Uint8Array.from(positive)));
}

export function bitString(bytes: Uint8Array): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.BITSTRING, false, `\0${binary(bytes)}`);
}

export function octetString(content: Asn1): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.OCTETSTRING, false, asn1.toDer(content).getBytes());
}

export function bool(value: boolean): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.BOOLEAN, false, value ? "\xff" : "\0");
}

export function utf8(text: string): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.UTF8, false, util.encodeUtf8(text));
}

/** [tag] constructed, context-specific. */
export function context(tag: number, ...items: Asn1[]): Asn1 {
  return asn1.create(Class.CONTEXT_SPECIFIC, tag, true, items);
}

/** [tag] primitive, context-specific, with raw content. */
export function contextText(tag: number, text: string): Asn1 {
  return asn1.create(Class.CONTEXT_SPECIFIC, tag, false, text);
}

/** UTCTime until 2049, GeneralizedTime after (RFC 5280 §4.1.2.5). */
export function time(ms: number): Asn1 {
  const date = new Date(ms);
  const late = date.getUTCFullYear() >= 2050;
  const text = late ? asn1.dateToGeneralizedTime(date) : asn1.dateToUtcTime(date);
  return asn1.create(Class.UNIVERSAL, late ? Type.GENERALIZEDTIME : Type.UTCTIME, false, text);
}

export function toDer(node: Asn1): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), "latin1");
}

/** forge's type declarations lack the options form; BIT STRINGs must stay as they are, not be guessed at. */
const parse = asn1.fromDer as unknown as (
  bytes: forge.util.ByteStringBuffer,
  options: { strict: boolean; decodeBitStrings: boolean },
) => Asn1;

/** Parses DER; throws forge's error on anything malformed. */
export function fromDer(der: Uint8Array): Asn1 {
  const bytes = util.createBuffer(binary(der));
  return parse(bytes, { strict: true, decodeBitStrings: false });
}

/** The children of a constructed node. Throws when it is not one. */
export function children(node: Asn1 | undefined): Asn1[] {
  if (node === undefined || !Array.isArray(node.value))
    throw new Error("expected a constructed ASN.1 value");
  return node.value;
}

/** The content bytes of a primitive node. Throws when it is constructed. */
export function content(node: Asn1 | undefined): Buffer {
  if (node === undefined || typeof node.value !== "string")
    throw new Error("expected a primitive ASN.1 value");
  return Buffer.from(node.value, "latin1");
}

export function oidOf(node: Asn1 | undefined): string {
  return asn1.derToOid(content(node).toString("latin1"));
}

function binary(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1");
}

/** True for [0], [1], …: an optional field that is present. */
export function isContextTag(node: Asn1): boolean {
  return node.tagClass === Class.CONTEXT_SPECIFIC;
}
