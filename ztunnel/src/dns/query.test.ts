import packet from "dns-packet";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeError } from "./answer.ts";
import { parseQuery, Rcode, udpPayloadBytesMax } from "./query.ts";

const OPT: packet.OptAnswer = {
  type: "OPT",
  name: ".",
  udpPayloadSize: 1_400,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: packet.DNSSEC_OK,
  flag_do: true,
  options: [],
};

function encode(name: string, additionals: packet.Answer[] = []): Buffer {
  const questions = [{ type: "AAAA" as const, name }];
  return packet.encode({ type: "query", id: 9, questions, additionals });
}

const questionOf = (message: Buffer) => {
  const parsed = parseQuery(message);
  if (!parsed?.ok) throw new Error("no question");
  return parsed.question;
};

describe("a query", () => {
  it("is read as another reader of DNS reads it", () => {
    const label = fc.stringMatching(/^[A-Za-z0-9_-]{1,63}$/);
    const name = fc
      .array(label, { minLength: 1, maxLength: 6 })
      .map((labels) => labels.join("."))
      .filter((text) => text.length <= 253);
    fc.assert(
      fc.property(name, fc.boolean(), (text, extended) => {
        const question = questionOf(encode(text, extended ? [OPT] : []));
        expect(question).toMatchObject({ name: text.toLowerCase(), type: 28, class: 1 });
        expect(question.edns !== undefined).toBe(extended);
      }),
    );
  });

  it("may be about the root, and about a name of 255 bytes, not 256", () => {
    expect(questionOf(encode(".")).name).toBe("");
    const labels = ["a".repeat(63), "b".repeat(63), "c".repeat(63)];
    const longest = [...labels, "d".repeat(61)].join(".");
    expect(questionOf(encode(longest)).name).toBe(longest);
    const tooLong = encode([...labels, "d".repeat(62)].join("."));
    expect(parseQuery(tooLong)).toEqual({ ok: false, rcode: Rcode.FORMERR });
  });

  it("has its EDNS among the first records behind the question", () => {
    const a: packet.Answer = { type: "A", name: "x.example", ttl: 1, data: "1.2.3.4" };
    const others = (count: number) => Array.from({ length: count }, () => a);
    const far = questionOf(encode("a", [...others(15), OPT]));
    expect(far.edns).toEqual({ payloadBytesMax: 1_400, version: 0, dnssecOk: true });
    expect(udpPayloadBytesMax(far)).toBe(1_400);
    expect(questionOf(encode("a", [...others(16), OPT])).edns).toBeUndefined();
  });

  it("whose further records are cut off is a query all the same: it is relayed whole", () => {
    const message = encode("a.b", [OPT]);
    for (let cut = 1; cut <= 11; cut++) {
      const question = questionOf(message.subarray(0, message.length - cut));
      expect(question).toMatchObject({ name: "a.b", edns: undefined });
    }
  });
});

it("an error answers anything that has a header, and can be read", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 12, maxLength: 80 }), (bytes) => {
      const query = Buffer.from(bytes);
      const error = packet.decode(encodeError(query, Rcode.SERVFAIL));
      expect(error).toMatchObject({ id: query.readUInt16BE(0), type: "response" });
    }),
  );
});
