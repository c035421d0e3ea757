// DNS messages from any pod, over UDP and cut out of a TCP stream.

import { assert } from "@ambit/common/process/assert.ts";
import packet from "dns-packet";
import { parseIp } from "@ambit/common/net/ip.ts";
import { encodeAnswer, parseQuery } from "./answer.ts";
import { frameTcp, TcpMessages } from "./forward.ts";

export const name = "dns";

export function corpus(): Uint8Array[] {
  const query = packet.encode({
    type: "query",
    id: 7,
    flags: packet.RECURSION_DESIRED,
    questions: [{ type: "A", name: "a.b" }],
  });
  return [
    query,
    frameTcp(query),
    packet.encode({ type: "response", id: 1, questions: [{ type: "AAAA", name: "x" }] }),
  ];
}

export function fuzz(data: Uint8Array): void {
  const parsed = parseQuery(Buffer.from(data));
  if (parsed?.ok) {
    const addresses = Array.from({ length: 60 }, (_, i) => parseIp(`10.0.0.${i}`)!);
    const udp = encodeAnswer(parsed.question, { addresses }, "udp");
    assert(
      udp.length <= parsed.question.udpPayloadBytesMax || udp.readUInt16BE(6) === 0,
      "an answer fits or is cut",
    );
  }
  new TcpMessages((message) => assert(message.length <= 65_535, "a message fits its length")).push(
    Buffer.from(data),
  );
}
