// DNS messages of our own making (RFC 1035 §4.1, RFC 6891): answers about what the mesh owns, and errors.
// The question goes back exactly as it came, so that clients which mix its case recognise it.

import { type Ip, ipFamily, ipToBytes } from "@ambit/common/net/ip.ts";
import {
  CLASS_IN,
  type Edns,
  Flag,
  HEADER_BYTES,
  parseQuery,
  type Question,
  type Rcode,
  RecordType,
  UDP_PAYLOAD_BYTES_MIN,
  udpPayloadBytesMax,
} from "./query.ts";
import type { LocalAnswer } from "./resolve.ts";

/** Long enough to cache, short enough to follow endpoints (ztunnel §3.6). */
const TTL_SECONDS = 30;
/** A pointer to the question's name (§4.1.4). */
const POINTER = 0xc000;

/** Our own answer; over UDP it is truncated, with TC set, to what the client can take. */
export function encodeAnswer(
  question: Question,
  { addresses, canonicalName }: LocalAnswer,
  transport: "udp" | "tcp",
): Buffer {
  const head = question.message.subarray(HEADER_BYTES, question.end);
  const records: Buffer[] = [];
  let owner = HEADER_BYTES;
  if (canonicalName !== undefined && addresses.length > 0) {
    records.push(record(owner, RecordType.CNAME, encodeName(canonicalName)));
    owner = question.end + RECORD_FIELDS_BYTES;
  }
  for (const ip of addresses) records.push(addressRecord(owner, ip));
  const edns = question.edns === undefined ? [] : [ednsRecord(question.edns)];
  const limit = transport === "udp" ? udpPayloadBytesMax(question) : Infinity;
  const kept = fitting(records, limit - HEADER_BYTES - head.length - byteLength(edns));
  const cut = kept < records.length ? Flag.truncated : 0;
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(question.message.readUInt16BE(0), 0);
  header.writeUInt16BE(responseFlags(question.message) | Flag.authoritative | cut, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(kept, 6);
  header.writeUInt16BE(edns.length, 10);
  return Buffer.concat([header, head, ...records.slice(0, kept), ...edns]);
}

/** An error about `query`, with its question when it has one that can be read. */
export function encodeError(query: Buffer, rcode: Rcode): Buffer {
  const parsed = parseQuery(query);
  const head = parsed?.ok ? query.subarray(HEADER_BYTES, parsed.question.end) : Buffer.alloc(0);
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(query.readUInt16BE(0), 0);
  header.writeUInt16BE(responseFlags(query) | rcode, 2);
  header.writeUInt16BE(head.length > 0 ? 1 : 0, 4);
  return Buffer.concat([header, head]);
}

/** What an answer repeats of its query's flags (RFC 1035 §4.1.1, RFC 4035 §3.2.2). */
function responseFlags(query: Buffer): number {
  const repeated = Flag.opcode | Flag.recursionDesired | Flag.checkingDisabled;
  return Flag.response | Flag.recursionAvailable | (query.readUInt16BE(2) & repeated);
}

/** How many of the records, from the first, fit in `bytesMax`. */
function fitting(records: readonly Buffer[], bytesMax: number): number {
  let count = 0;
  for (let used = 0; count < records.length; count++) {
    used += records[count]!.length;
    if (used > bytesMax) break;
  }
  return count;
}

function byteLength(buffers: readonly Buffer[]): number {
  return buffers.reduce((sum, { length }) => sum + length, 0);
}

function addressRecord(owner: number, ip: Ip): Buffer {
  const type = ipFamily(ip) === 4 ? RecordType.A : RecordType.AAAA;
  return record(owner, type, Buffer.from(ipToBytes(ip)));
}

/** Owner pointer, type, class, TTL and length of the data, which follows. */
const RECORD_FIELDS_BYTES = 12;

function record(owner: number, type: number, data: Buffer): Buffer {
  const fields = Buffer.alloc(RECORD_FIELDS_BYTES);
  fields.writeUInt16BE(POINTER | owner, 0);
  fields.writeUInt16BE(type, 2);
  fields.writeUInt16BE(CLASS_IN, 4);
  fields.writeUInt32BE(TTL_SECONDS, 6);
  fields.writeUInt16BE(data.length, 10);
  return Buffer.concat([fields, data]);
}

/** Only names that were read by parseQuery come here, so that labels are short and plain. */
function encodeName(name: string): Buffer {
  const labels = name
    .split(".")
    .flatMap((label) => [Buffer.of(label.length), Buffer.from(label, "latin1")]);
  return Buffer.concat([...labels, Buffer.of(0)]);
}

/** What the client said of itself, repeated as Istio does (RFC 6891 §6.1.2). */
function ednsRecord({ payloadBytesMax, version, dnssecOk }: Edns): Buffer {
  const bytes = Buffer.alloc(11);
  bytes.writeUInt16BE(RecordType.OPT, 1);
  bytes.writeUInt16BE(Math.max(UDP_PAYLOAD_BYTES_MIN, payloadBytesMax), 3);
  bytes[6] = version;
  bytes[7] = dnssecOk ? 0x80 : 0;
  return bytes;
}
