// Reads the types of a BPF object (BTF, Documentation/bpf/btf.rst of the kernel): structures with their
// offsets, enumerations, and the attributes of maps. Build time only.

import { cString } from "./elf.ts";

export interface BtfMember {
  readonly name: string;
  readonly type: number;
  readonly bitOffset: number;
}

/** One type. `size` is the referred-to type for the kinds that refer to one. */
export interface BtfType {
  readonly kind: number;
  readonly name: string;
  readonly size: number;
  readonly members: readonly BtfMember[];
  readonly values: readonly { readonly name: string; readonly value: number }[];
  /** Arrays only. */
  readonly array: { readonly element: number; readonly length: number } | undefined;
}

export const Kind = {
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  DECL_TAG: 17,
  ENUM64: 19,
} as const;

const REFERRING: ReadonlySet<number> = new Set([8, 9, 10, 11, 18]);
const POINTER_BYTES = 8;

export class Btf {
  readonly types: readonly BtfType[];

  /** Parses a .BTF section. Throws on a kind it does not know. */
  constructor(section: Buffer) {
    if (section.readUInt16LE(0) !== 0xeb9f) throw new Error("not a BTF section");
    const header = section.readUInt32LE(4);
    const at = header + section.readUInt32LE(8);
    const types = section.subarray(at, at + section.readUInt32LE(12));
    const stringsAt = header + section.readUInt32LE(16);
    this.types = parseTypes(types, section.subarray(stringsAt));
  }

  /** Type numbers start at 1; 0 is void. */
  type(id: number): BtfType {
    const found = this.types[id - 1];
    if (found === undefined) throw new Error(`BTF has no type ${id}`);
    return found;
  }

  named(kind: number, name: string): BtfType | undefined {
    return this.types.find((type) => type.kind === kind && type.name === name);
  }

  sizeOf(id: number): number {
    const type = this.type(id);
    if (type.kind === Kind.PTR) return POINTER_BYTES;
    if (type.array !== undefined) return type.array.length * this.sizeOf(type.array.element);
    return REFERRING.has(type.kind) ? this.sizeOf(type.size) : type.size;
  }

  /** The type behind typedefs and qualifiers. */
  resolve(id: number): BtfType {
    const type = this.type(id);
    return REFERRING.has(type.kind) ? this.resolve(type.size) : type;
  }
}

function parseTypes(bytes: Buffer, strings: Buffer): BtfType[] {
  const types: BtfType[] = [];
  for (let at = 0; at < bytes.length;) {
    const info = bytes.readUInt32LE(at + 4);
    const kind = (info >>> 24) & 0x1f;
    const count = info & 0xffff;
    const body = at + 12;
    types.push({
      kind,
      name: cString(strings, bytes.readUInt32LE(at)),
      size: bytes.readUInt32LE(at + 8),
      members: isComposite(kind) ? parseMembers(bytes, body, count, strings) : [],
      values: kind === Kind.ENUM ? parseValues(bytes, body, count, strings) : [],
      array:
        kind === Kind.ARRAY
          ? { element: bytes.readUInt32LE(body), length: bytes.readUInt32LE(body + 8) }
          : undefined,
    });
    at = body + bodyBytes(kind, count);
  }
  return types;
}

function isComposite(kind: number): boolean {
  return kind === Kind.STRUCT || kind === Kind.UNION;
}

function parseMembers(bytes: Buffer, at: number, count: number, strings: Buffer): BtfMember[] {
  return Array.from({ length: count }, (_, index) => ({
    name: cString(strings, bytes.readUInt32LE(at + index * 12)),
    type: bytes.readUInt32LE(at + index * 12 + 4),
    bitOffset: bytes.readUInt32LE(at + index * 12 + 8),
  }));
}

function parseValues(bytes: Buffer, at: number, count: number, strings: Buffer) {
  return Array.from({ length: count }, (_, index) => ({
    name: cString(strings, bytes.readUInt32LE(at + index * 8)),
    value: bytes.readInt32LE(at + index * 8 + 4),
  }));
}

/** Bytes that follow the twelve common ones. */
function bodyBytes(kind: number, count: number): number {
  switch (kind) {
    case Kind.INT:
    case Kind.VAR:
    case Kind.DECL_TAG:
      return 4;
    case Kind.ARRAY:
      return 12;
    case Kind.ENUM:
    case Kind.FUNC_PROTO:
      return count * 8;
    case Kind.STRUCT:
    case Kind.UNION:
    case Kind.DATASEC:
    case Kind.ENUM64:
      return count * 12;
    default:
      if (kind < 1 || kind > 19) throw new Error(`BTF kind ${kind} is not known`);
      return 0;
  }
}
