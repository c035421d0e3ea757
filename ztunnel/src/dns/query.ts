// What we read of a DNS query (RFC 1035 §4.1, RFC 6891): the header, the one question, and what the
// client says it can take. The rest is not looked at: a query that is not ours to answer is relayed whole.

export const Rcode = { FORMERR: 1, SERVFAIL: 2, NOTIMP: 4 } as const;
export type Rcode = (typeof Rcode)[keyof typeof Rcode];

export const HEADER_BYTES = 12;
/** Header flags, in the second 16-bit word. */
export const Flag = {
  response: 0x8000,
  opcode: 0x7800,
  authoritative: 0x0400,
  truncated: 0x0200,
  recursionDesired: 0x0100,
  recursionAvailable: 0x0080,
  checkingDisabled: 0x0010,
} as const;

export const RecordType = { A: 1, CNAME: 5, AAAA: 28, OPT: 41 } as const;
export const CLASS_IN = 1;

const NAME_BYTES_MAX = 255;
/** More records behind the question than a sane client sends: we look no further for its OPT. */
const RECORDS_LOOKED_AT_MAX = 16;
export const UDP_PAYLOAD_BYTES_MIN = 512;

export interface Edns {
  readonly payloadBytesMax: number;
  readonly version: number;
  readonly dnssecOk: boolean;
}

export interface Question {
  /** The query as it came. */
  readonly message: Buffer;
  /** Lower case, no final dot; undefined when a label has bytes that no name of ours has. */
  readonly name: string | undefined;
  readonly type: number;
  readonly class: number;
  /** Where the question ends in `message`. */
  readonly end: number;
  readonly edns: Edns | undefined;
}

export type ParsedQuery =
  | { readonly ok: true; readonly question: Question }
  | { readonly ok: false; readonly rcode: Rcode };

/** Reads a query; malformed or unsupported ones come back with the code to answer. */
export function parseQuery(message: Buffer): ParsedQuery | undefined {
  if (message.length < HEADER_BYTES) return undefined;
  const flags = message.readUInt16BE(2);
  if (flags & Flag.response) return { ok: false, rcode: Rcode.FORMERR };
  if (flags & Flag.opcode) return { ok: false, rcode: Rcode.NOTIMP };
  const questions = message.readUInt16BE(4);
  const nameEnd = questions === 1 ? endOfName(message, HEADER_BYTES) : undefined;
  const end = nameEnd === undefined ? Infinity : nameEnd + 4;
  if (nameEnd === undefined || end > message.length) return { ok: false, rcode: Rcode.FORMERR };
  const question: Question = {
    message,
    name: nameText(message, HEADER_BYTES),
    type: message.readUInt16BE(nameEnd),
    class: message.readUInt16BE(nameEnd + 2),
    end,
    edns: findEdns(message, end),
  };
  return { ok: true, question };
}

/** How large an answer over UDP may be. */
export function udpPayloadBytesMax({ edns }: Question): number {
  return Math.max(UDP_PAYLOAD_BYTES_MIN, edns?.payloadBytesMax ?? 0);
}

/** Behind the name at `start`; undefined when it is cut off, too long, or compressed (there is nothing yet). */
function endOfName(message: Buffer, start: number): number | undefined {
  for (let at = start; at < message.length && at - start < NAME_BYTES_MAX;) {
    const length = message[at]!;
    if (length === 0) return at + 1;
    if (length > 63) return undefined;
    at += 1 + length;
  }
  return undefined;
}

/** The name's text; undefined when a label has a byte that is no letter, digit, or one of - _ * */
function nameText(message: Buffer, start: number): string | undefined {
  let text = "";
  for (let at = start; message[at] !== 0;) {
    const end = at + 1 + message[at]!;
    if (text !== "") text += ".";
    for (at++; at < end; at++) {
      const byte = message[at]!;
      if (!isNameByte(byte)) return undefined;
      text += String.fromCharCode(byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte);
    }
  }
  return text;
}

function isNameByte(byte: number): boolean {
  return (
    (byte >= 0x61 && byte <= 0x7a) ||
    (byte >= 0x41 && byte <= 0x5a) ||
    (byte >= 0x30 && byte <= 0x39) ||
    byte === 0x2d ||
    byte === 0x5f ||
    byte === 0x2a
  );
}

/** The OPT record among those that follow the question; undefined without one, or when they are malformed. */
function findEdns(message: Buffer, questionEnd: number): Edns | undefined {
  const records = message.readUInt16BE(6) + message.readUInt16BE(8) + message.readUInt16BE(10);
  let at = questionEnd;
  for (let index = 0; index < Math.min(records, RECORDS_LOOKED_AT_MAX); index++) {
    const fields = endOfOwner(message, at);
    if (fields === undefined || fields + 10 > message.length) return undefined;
    if (message.readUInt16BE(fields) === RecordType.OPT) return ednsAt(message, fields);
    at = fields + 10 + message.readUInt16BE(fields + 8);
  }
  return undefined;
}

/** The same as endOfName for the name of a record, which may end in a pointer (§4.1.4). */
function endOfOwner(message: Buffer, start: number): number | undefined {
  for (let at = start; at < message.length && at - start < NAME_BYTES_MAX;) {
    const length = message[at]!;
    if (length === 0) return at + 1;
    if (length >= 0xc0) return at + 2;
    if (length > 63) return undefined;
    at += 1 + length;
  }
  return undefined;
}

/** OPT keeps its values in the fields of an ordinary record (RFC 6891 §6.1.3). */
function ednsAt(message: Buffer, fields: number): Edns {
  return {
    payloadBytesMax: message.readUInt16BE(fields + 2),
    version: message[fields + 5]!,
    dnssecOk: (message[fields + 6]! & 0x80) !== 0,
  };
}
