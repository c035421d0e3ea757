// DNS messages (RFC 1035, RFC 6891) for the answers we give ourselves. Messages that we relay are never
// taken apart.

import packet from "dns-packet";
import { ipFamily } from "@ambit/common/net/ip.ts";
import type { LocalAnswer } from "./resolve.ts";

/** Long enough to cache, short enough to follow endpoints (ztunnel §3.6). */
const TTL_SECONDS = 30;
const UDP_PAYLOAD_BYTES_MIN = 512;
const OPCODE_MASK = 0x7800;
const RESPONSE_FLAG = 0x8000;

export const Rcode = { FORMERR: 1, SERVFAIL: 2, NOTIMP: 4 } as const;

export interface Question {
  readonly id: number;
  /** Lower case, no final dot. */
  readonly name: string;
  readonly type: string;
  readonly message: packet.DecodedPacket;
  readonly udpPayloadBytesMax: number;
}

export type ParsedQuery =
  | { readonly ok: true; readonly question: Question }
  | { readonly ok: false; readonly id: number; readonly rcode: number };

/** Reads a query; malformed or unsupported ones come back with the code to answer. */
export function parseQuery(bytes: Buffer): ParsedQuery | undefined {
  if (bytes.length < 12) return undefined;
  const id = bytes.readUInt16BE(0);
  const flags = bytes.readUInt16BE(2);
  if (flags & RESPONSE_FLAG) return { ok: false, id, rcode: Rcode.FORMERR };
  if (flags & OPCODE_MASK) return { ok: false, id, rcode: Rcode.NOTIMP };
  try {
    const message = packet.decode(bytes);
    const [question] = message.questions ?? [];
    if (question === undefined) return { ok: false, id, rcode: Rcode.FORMERR };
    const edns = message.additionals?.find((record) => record.type === "OPT");
    const payload = edns?.type === "OPT" ? edns.udpPayloadSize : UDP_PAYLOAD_BYTES_MIN;
    const name = question.name.toLowerCase().replace(/\.$/, "");
    const udpPayloadBytesMax = Math.max(UDP_PAYLOAD_BYTES_MIN, payload);
    return { ok: true, question: { id, name, type: question.type, message, udpPayloadBytesMax } };
  } catch {
    return { ok: false, id, rcode: Rcode.FORMERR };
  }
}

/** Our own answer; over UDP it is truncated, with TC set, to what the client can take. */
export function encodeAnswer(
  question: Question,
  answer: LocalAnswer,
  transport: "udp" | "tcp",
): Buffer {
  const { name } = question.message.questions![0]!;
  const owner = answer.canonicalName ?? name;
  const records: packet.Answer[] = answer.addresses.map((ip) => ({
    type: ipFamily(ip) === 4 ? ("A" as const) : ("AAAA" as const),
    name: owner,
    ttl: TTL_SECONDS,
    data: ip,
  }));
  if (answer.canonicalName !== undefined) {
    records.unshift({ type: "CNAME", name, ttl: TTL_SECONDS, data: answer.canonicalName });
  }
  const whole = encode(question, records, false);
  if (transport === "tcp" || whole.length <= question.udpPayloadBytesMax) return whole;
  return truncated(question, records);
}

function truncated(question: Question, records: readonly packet.Answer[]): Buffer {
  for (let count = records.length - 1; count > 0; count--) {
    const part = encode(question, records.slice(0, count), true);
    if (part.length <= question.udpPayloadBytesMax) return part;
  }
  return encode(question, [], true);
}

function encode(
  { id, message, udpPayloadBytesMax }: Question,
  answers: readonly packet.Answer[],
  cut: boolean,
): Buffer {
  const flags =
    packet.AUTHORITATIVE_ANSWER |
    packet.RECURSION_AVAILABLE |
    (message.flag_rd ? packet.RECURSION_DESIRED : 0) |
    (cut ? packet.TRUNCATED_RESPONSE : 0);
  const hasEdns = message.additionals?.some((record) => record.type === "OPT") ?? false;
  return packet.encode({
    type: "response",
    id,
    flags,
    questions: message.questions ?? [],
    answers: [...answers],
    additionals: hasEdns ? [ednsRecord(udpPayloadBytesMax)] : [],
  });
}

function ednsRecord(udpPayloadSize: number): packet.OptAnswer {
  return {
    type: "OPT",
    name: ".",
    udpPayloadSize,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  };
}

/** A bare error: header only, with the query's id. */
export function encodeError(id: number, rcode: number): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt16BE(id, 0);
  bytes.writeUInt16BE(RESPONSE_FLAG | packet.RECURSION_AVAILABLE | rcode, 2);
  return bytes;
}
