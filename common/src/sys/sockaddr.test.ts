import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ipFromBytes } from "../net/ip.ts";
import { decodeSockaddr, encodeSockaddr } from "./sockaddr.ts";

const address = (length: 4 | 16) =>
  fc.record({
    ip: fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) => ipFromBytes(bytes)!),
    port: fc.integer({ min: 0, max: 65_535 }),
  });

describe("a socket address", () => {
  it("is laid out as the kernel wants it", () => {
    const [four] = [ipFromBytes(Uint8Array.of(10, 1, 2, 3))!];
    expect(encodeSockaddr({ ip: four, port: 0x1234 }).toString("hex")).toBe(
      "020012340a0102030000000000000000",
    );
    expect(encodeSockaddr({ ip: four, port: 80 }, 6).toString("hex")).toBe(
      "0a0000500000000000000000000000000000ffff0a01020300000000",
    );
  });

  it("comes back as it went, v4-mapped as IPv4", () => {
    fc.assert(
      fc.property(fc.oneof(address(4), address(16)), (given) => {
        expect(decodeSockaddr(encodeSockaddr(given))).toEqual(given);
        expect(decodeSockaddr(encodeSockaddr(given, 6))).toEqual(given);
      }),
    );
  });

  it("of another family is none", () => {
    expect(decodeSockaddr(Buffer.alloc(28))).toBeUndefined();
  });
});
