// DNS messages from any pod, over UDP and cut out of a TCP stream. What we read must agree with another
// reader of DNS; what we write, it must be able to read.

import packet from "dns-packet";
import { parseIp } from "@ambit/common/net/ip.ts";
import { assert } from "@ambit/common/process/assert.ts";
import { encodeAnswer, encodeError } from "./answer.ts";
import { parseQuery, type Question, Rcode, udpPayloadBytesMax } from "./query.ts";
import { frameTcp, TcpMessages } from "./tcp-messages.ts";

export const name = "dns";

const ADDRESSES = Array.from({ length: 60 }, (_, i) =>
  parseIp(i % 2 ? `10.0.0.${i}` : `fd00::${i}`)!,
);

export function corpus(): Uint8Array[] {
  const query = packet.encode({
    type: "query",
    id: 7,
    flags: packet.RECURSION_DESIRED,
    questions: [{ type: "A", name: "a.b" }],
  });
  const extended = packet.encode({
    type: "query",
    id: 9,
    questions: [{ type: "AAAA", name: "A.B.example" }],
    additionals: [
      {
        type: "OPT",
        name: ".",
        udpPayloadSize: 1232,
        flags: 0,
        options: [],
        extendedRcode: 0,
        ednsVersion: 0,
        flag_do: true,
      },
    ],
  });
  const response = packet.encode({
    type: "response",
    id: 1,
    questions: [{ type: "AAAA", name: "x" }],
  });
  return [query, extended, frameTcp(query), response];
}

export function fuzz(data: Uint8Array): void {
  const message = Buffer.from(data);
  const parsed = parseQuery(message);
  if (parsed !== undefined) {
    const error = packet.decode(encodeError(message, Rcode.SERVFAIL));
    assert(error.id === message.readUInt16BE(0), "an error answers its query");
  }
  if (parsed?.ok) checkQuestion(parsed.question);
  new TcpMessages((one) => assert(one.length <= 65_535, "a message fits its length")).push(message);
}

function checkQuestion(question: Question): void {
  for (const canonicalName of ["plain.example", undefined]) {
    const answer = { addresses: ADDRESSES, ...(canonicalName && { canonicalName }) };
    const udp = encodeAnswer(question, answer, "udp");
    assert(udp.length <= Math.max(udpPayloadBytesMax(question), 512), "an answer fits");
    const tcp = packet.decode(encodeAnswer(question, answer, "tcp"));
    const records = ADDRESSES.length + (canonicalName === undefined ? 0 : 1);
    assert(tcp.answers?.length === records, "over TCP nothing is cut");
    const [asked] = tcp.questions ?? [];
    const sameName = asked?.name.toLowerCase() === (question.name || ".");
    assert(question.name === undefined || sameName, "both read the same name");
  }
}
