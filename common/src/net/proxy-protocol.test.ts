import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ipFamily, ipFromBytes } from "./ip.ts";
import {
  encodeProxyHeader,
  parseProxyHeader,
  PROXY_HEADER_BYTES_MAX,
  TLV_IDENTITY,
} from "./proxy-protocol.ts";
import { parseSocketAddress } from "./socket-address.ts";

const at = (text: string) => parseSocketAddress(text)!;
const ID = "spiffe://cluster.local/ns/ns/sa/a";
const SIGNATURE = "0d0a0d0a000d0a515549540a";

describe("a PROXY header is written", () => {
  it.each([
    ["10.0.0.1:4000", "10.0.0.2:80", `${SIGNATURE}2111000c0a0000010a0000020fa00050`],
    [
      "[fd00::1]:4000",
      "[fd00::2]:80",
      `${SIGNATURE}21210024${"fd00".padEnd(31, "0")}1${"fd00".padEnd(31, "0")}20fa00050`,
    ],
    ["10.0.0.1:4000", "[fd00::2]:80", `${SIGNATURE}21010000`],
  ])("from %s to %s", (source, destination, hex) => {
    expect(encodeProxyHeader(at(source), at(destination), new Map()).toString("hex")).toBe(hex);
  });

  it("with the peer's identity in a TLV", () => {
    const tlvs = new Map([[TLV_IDENTITY, ID]]);
    const header = encodeProxyHeader(at("10.0.0.1:1"), at("10.0.0.2:2"), tlvs);
    const tlv = Buffer.concat([Buffer.of(0xd0, 0, ID.length), Buffer.from(ID)]);
    expect(header.subarray(28)).toEqual(tlv);
    expect(header.readUInt16BE(14)).toBe(12 + tlv.length);
  });
});

const ip = fc
  .oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
  )
  .map((bytes) => ipFromBytes(bytes)!);
const address = fc.record({ ip, port: fc.nat(65_535) });

describe("a PROXY header is read", () => {
  it("back as it was written, whatever follows, and never before it is whole", () => {
    const identity = fc.option(fc.string({ maxLength: 200 }), { nil: undefined });
    const sample = fc.tuple(address, address, identity, fc.uint8Array());
    fc.assert(
      fc.property(sample, fc.nat(), ([source, destination, id, rest], cut) => {
        const tlvs = new Map(id === undefined ? [] : [[TLV_IDENTITY, id]]);
        const header = encodeProxyHeader(source, destination, tlvs);
        const parsed = parseProxyHeader(Buffer.concat([header, rest]));
        if (parsed.kind !== "header") return expect.unreachable();
        expect(parsed.length).toBe(header.length);
        expect(parsed.header.tlvs.get(TLV_IDENTITY)?.toString()).toBe(id);
        const same = ipFamily(source.ip) === ipFamily(destination.ip);
        expect(parsed.header.source).toEqual(same ? source : undefined);
        expect(parsed.header.destination).toEqual(same ? destination : undefined);
        expect(parseProxyHeader(header.subarray(0, cut % header.length)).kind).toBe("incomplete");
      }),
    );
  });

  it("when it says that the connection is the proxy's own", () => {
    const local = Buffer.from(`${SIGNATURE}20010000`, "hex");
    expect(parseProxyHeader(local)).toMatchObject({ kind: "header", length: 16 });
  });

  it.each([
    ["text", "GET / HTTP/1.1", /signature/],
    ["version 1", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", /signature/],
    ["version 3", Buffer.from(`${SIGNATURE}3111000c`, "hex"), /0x31/],
    ["a datagram's", Buffer.from(`${SIGNATURE}2112000c${"00".repeat(12)}`, "hex"), /family 0x12/],
    ["cut addresses", Buffer.from(`${SIGNATURE}2111000b${"00".repeat(11)}`, "hex"), /cut off/],
    ["a cut TLV", Buffer.from(`${SIGNATURE}21010004d0000200`, "hex"), /TLV is cut off/],
    ["half a TLV's head", Buffer.from(`${SIGNATURE}21010002d000`, "hex"), /TLV is cut off/],
  ])("and refused when it is %s", (_, bytes, reason) => {
    const parsed = parseProxyHeader(Buffer.from(bytes));
    expect(parsed).toMatchObject({ kind: "malformed", reason: expect.stringMatching(reason) });
  });

  it("up to its greatest length, and refused one byte beyond", () => {
    const fixed = (length: number) => {
      const head = Buffer.from(`${SIGNATURE}21010000`, "hex");
      head.writeUInt16BE(length - head.length, 14);
      return head;
    };
    expect(parseProxyHeader(fixed(PROXY_HEADER_BYTES_MAX)).kind).toBe("incomplete");
    expect(parseProxyHeader(fixed(PROXY_HEADER_BYTES_MAX + 1)).kind).toBe("malformed");
  });
});
