import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HpackDecoder } from "./hpack-decoder.ts";
import { hpackEncode } from "./hpack-encoder.ts";
import type { HeaderField } from "./hpack-table.ts";
import { huffmanDecode, huffmanEncode } from "./huffman.ts";

const decode = (hex: string, decoder = new HpackDecoder(4096, 65_536)) =>
  decoder
    .decode(Buffer.from(hex.replaceAll(" ", ""), "hex"))
    .fields.map(({ name, value }) => `${name}: ${value}`);

const latin1 = fc.string({
  unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)),
});

describe("HPACK (RFC 7541)", () => {
  it("decodes the request sequence of Appendix C.4, with Huffman and the dynamic table", () => {
    const decoder = new HpackDecoder(4096, 65_536);
    expect(decode("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", decoder)).toEqual([
      ":method: GET",
      ":scheme: http",
      ":path: /",
      ":authority: www.example.com",
    ]);
    expect(decode("8286 84be 5886 a8eb 1064 9cbf", decoder)).toEqual([
      ":method: GET",
      ":scheme: http",
      ":path: /",
      ":authority: www.example.com",
      "cache-control: no-cache",
    ]);
    expect(decode("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", decoder)).toEqual([
      ":method: GET",
      ":scheme: https",
      ":path: /index.html",
      ":authority: www.example.com",
      "custom-key: custom-value",
    ]);
  });

  it("evicts as in the response sequence of Appendix C.6", () => {
    const decoder = new HpackDecoder(256, 65_536);
    decode(
      "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
      decoder,
    );
    expect(decode("4883 640e ffc1 c0bf", decoder)).toEqual([
      ":status: 307",
      "cache-control: private",
      "date: Mon, 21 Oct 2013 20:13:21 GMT",
      "location: https://www.example.com",
    ]);
  });

  it.each([
    ["index 0", "80"],
    ["an index past the table", "ff00"],
    ["a string cut short", "4003 61"],
    ["an integer that never ends", "ffff ffff ffff ffff ff"],
    ["a size update above our setting", "3fe2 1f"],
    ["a size update after a field", "82 20"],
    ["Huffman padding of zeros", "0001 6181 00"],
    ["Huffman padding of a whole byte", "0001 6182 1fff"],
  ])("refuses %s", (_, hex) => {
    expect(() => decode(hex)).toThrow(/HPACK/);
  });

  it("accepts a header list at the size bound and reports one byte more", () => {
    const field = { name: "a", value: "b".repeat(67) };
    const block = hpackEncode([field]);
    expect(new HpackDecoder(4096, 100).decode(block)).toEqual({ fields: [field], tooLarge: false });
    expect(new HpackDecoder(4096, 99).decode(block)).toEqual({ fields: [], tooLarge: true });
  });

  it("gives back any header list it encoded", () => {
    const field = fc.record({ name: fc.stringMatching(/^[a-z:-]{1,30}$/), value: latin1 });
    fc.assert(
      fc.property(fc.array(field, { maxLength: 20 }), (fields: HeaderField[]) => {
        expect(new HpackDecoder(4096, 1 << 20).decode(hpackEncode(fields)).fields).toEqual(fields);
      }),
    );
  });

  it("gives back any text it Huffman-encoded", () => {
    fc.assert(
      fc.property(latin1, (text) => {
        const bytes = huffmanEncode(text);
        expect(huffmanDecode(bytes, 0, bytes.length)).toBe(text);
      }),
    );
  });
});
