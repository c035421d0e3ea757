// Reads the sections of a 64-bit little-endian ELF file: as much of ELF as a BPF object needs.

const SECTION_HEADER_BYTES = 64;

/** Sections by name. Throws when the file is not what clang writes for bpfel. */
export function elfSections(file: Buffer): Map<string, Buffer> {
  if (file.toString("latin1", 0, 4) !== "\x7fELF" || file[4] !== 2 || file[5] !== 1) {
    throw new Error("not a 64-bit little-endian ELF file");
  }
  const table = Number(file.readBigUInt64LE(40));
  const count = file.readUInt16LE(60);
  const headers = Array.from({ length: count }, (_, index) => {
    const at = table + index * SECTION_HEADER_BYTES;
    const offset = Number(file.readBigUInt64LE(at + 24));
    const size = Number(file.readBigUInt64LE(at + 32));
    return { name: file.readUInt32LE(at), bytes: file.subarray(offset, offset + size) };
  });
  const names = headers[file.readUInt16LE(62)]!.bytes;
  return new Map(headers.map(({ name, bytes }) => [cString(names, name), bytes]));
}

/** The zero-terminated text at `offset` of a string table. */
export function cString(table: Buffer, offset: number): string {
  return table.toString("utf8", offset, table.indexOf(0, offset));
}
