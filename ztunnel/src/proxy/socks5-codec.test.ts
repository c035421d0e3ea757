import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  encodeReply,
  parseGreeting,
  parseSocksRequest,
  SOCKS_BYTES_MAX,
  SocksReply,
} from "./socks5-codec.ts";

const bytes = (...parts: (number | string)[]) =>
  Buffer.concat(
    parts.map((part) => (typeof part === "string" ? Buffer.from(part) : Buffer.of(part))),
  );

describe("a greeting", () => {
  it.each([
    ["with our method", bytes(5, 1, 0), "accepted", 3],
    ["with others besides", bytes(5, 3, 2, 0, 1), "accepted", 5],
    ["with others only", bytes(5, 2, 1, 2), "no method", 4],
    ["without any", bytes(5, 0), "no method", 2],
  ])("%s", (_, greeting, value, length) => {
    expect(parseGreeting(greeting)).toEqual({ kind: "parsed", value, length });
  });

  it("of another version is none", () => {
    expect(parseGreeting(bytes(4, 1))).toMatchObject({ kind: "malformed" });
  });
});

describe("a request", () => {
  it.each([
    ["for IPv4", bytes(5, 1, 0, 1, 10, 0, 0, 1, 0, 80), { ip: "10.0.0.1" }, 80],
    [
      "for IPv6",
      bytes(5, 1, 0, 4, 0xfd, ...Array<number>(14).fill(0), 1, 1, 187),
      { ip: "fd00::1" },
      443,
    ],
    ["for a name", bytes(5, 1, 0, 3, 3, "WeB", 31, 144), { hostname: "web" }, 8080],
    [
      "for the longest name",
      bytes(5, 1, 0, 3, 255, "a".repeat(255), 0, 1),
      { hostname: "a".repeat(255) },
      1,
    ],
  ])("%s", (_, request, host, port) => {
    const value = { host, port };
    expect(parseSocksRequest(request)).toEqual({ kind: "parsed", value, length: request.length });
  });

  it.each([
    ["of another version", bytes(4, 1, 0, 1), SocksReply.generalFailure],
    ["to bind", bytes(5, 2), SocksReply.commandNotSupported],
    ["for datagrams", bytes(5, 3, 0, 1, 0, 0, 0, 0, 0, 0), SocksReply.commandNotSupported],
    ["for another kind of address", bytes(5, 1, 0, 2, 0), SocksReply.addressTypeNotSupported],
    ["for an empty name", bytes(5, 1, 0, 3, 0, 0, 80), SocksReply.generalFailure],
    ["for a name that is none", bytes(5, 1, 0, 3, 3, "a b", 0, 80), SocksReply.generalFailure],
  ])("%s is answered", (_, request, reply) => {
    expect(parseSocksRequest(request)).toMatchObject({ kind: "malformed", reply });
  });

  it("is not understood before it is whole, and no valid one is longer than the limit", () => {
    const host = fc.oneof(
      fc.tuple(fc.constant(1), fc.uint8Array({ minLength: 4, maxLength: 4 })),
      fc.tuple(fc.constant(4), fc.uint8Array({ minLength: 16, maxLength: 16 })),
      fc
        .stringMatching(/^[a-z.]{1,255}$/)
        .map((name): [number, Uint8Array] => [3, bytes(name.length, name)]),
    );
    fc.assert(
      fc.property(host, fc.nat(65_535), fc.nat(), ([type, address], port, cut) => {
        const request = bytes(5, 1, 0, type, Buffer.from(address).toString("latin1"));
        const whole = Buffer.concat([
          request.subarray(0, 4),
          address,
          Buffer.of(port >> 8, port & 0xff),
        ]);
        const parsed = parseSocksRequest(Buffer.concat([whole, Buffer.from("more")]));
        expect(parsed).toMatchObject({ kind: "parsed", length: whole.length, value: { port } });
        expect(whole.length).toBeLessThanOrEqual(SOCKS_BYTES_MAX);
        const part = parseSocksRequest(whole.subarray(0, cut % whole.length));
        expect(part.kind).toBe("incomplete");
      }),
    );
  });
});

it("a reply names no address", () => {
  expect(encodeReply(SocksReply.hostUnreachable)).toEqual(bytes(5, 4, 0, 1, 0, 0, 0, 0, 0, 0));
});
