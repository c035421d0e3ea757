// SOCKS version 5 (RFC 1928), as much as an application needs to say where it wants to go: no
// authentication, CONNECT only. Pure: bytes in, meaning out.

import { type Ip, ipFromBytes } from "@ambit/common/net/ip.ts";

/** A greeting with 255 methods and a request for a name of 255 bytes: nothing valid is longer. */
export const SOCKS_BYTES_MAX = 2 + 255 + 4 + 1 + 255 + 2;

/** The reply field (RFC 1928 §6). */
export const SocksReply = {
  succeeded: 0,
  generalFailure: 1,
  hostUnreachable: 4,
  commandNotSupported: 7,
  addressTypeNotSupported: 8,
} as const;
export type SocksReply = (typeof SocksReply)[keyof typeof SocksReply];

export interface SocksTarget {
  readonly host: { readonly ip: Ip } | { readonly hostname: string };
  readonly port: number;
}

/** `length` bytes have been understood; the rest comes after them. */
export type SocksParse<T> =
  | { readonly kind: "parsed"; readonly value: T; readonly length: number }
  | { readonly kind: "incomplete" }
  | { readonly kind: "malformed"; readonly reason: string; readonly reply?: SocksReply };

const VERSION = 5;
const NO_AUTHENTICATION = 0;
const CONNECT = 1;
const IPV4 = 1;
const HOSTNAME = 3;
const IPV6 = 4;
const REQUEST_HEAD_BYTES = 4;
const PORT_BYTES = 2;
const INCOMPLETE = { kind: "incomplete" } as const;

/** The answer that accepts a greeting. */
export const METHOD_ANSWER = Buffer.of(VERSION, NO_AUTHENTICATION);
/** The answer that none of its methods will do. */
export const NO_METHOD_ANSWER = Buffer.of(VERSION, 0xff);

/** The client's greeting: its methods, of which we take none but "no authentication". */
export function parseGreeting(bytes: Buffer): SocksParse<"accepted" | "no method"> {
  if (bytes.length > 0 && bytes[0] !== VERSION) return wrongVersion(bytes[0]!);
  if (bytes.length < 2) return INCOMPLETE;
  const length = 2 + bytes[1]!;
  if (bytes.length < length) return INCOMPLETE;
  const value = bytes.subarray(2, length).includes(NO_AUTHENTICATION) ? "accepted" : "no method";
  return { kind: "parsed", value, length };
}

/** The client's request: where it wants to go. */
export function parseSocksRequest(bytes: Buffer): SocksParse<SocksTarget> {
  if (bytes.length > 0 && bytes[0] !== VERSION) return wrongVersion(bytes[0]!);
  if (bytes.length > 1 && bytes[1] !== CONNECT) {
    return malformed(`command ${bytes[1]}`, SocksReply.commandNotSupported);
  }
  if (bytes.length <= REQUEST_HEAD_BYTES) return INCOMPLETE;
  const host = hostBytes(bytes);
  if (host === undefined) {
    return malformed(`address type ${bytes[3]}`, SocksReply.addressTypeNotSupported);
  }
  const length = host.end + PORT_BYTES;
  if (bytes.length < length) return INCOMPLETE;
  const port = bytes.readUInt16BE(host.end);
  const address = bytes.subarray(host.start, host.end);
  const ip = bytes[3] === HOSTNAME ? undefined : ipFromBytes(address);
  if (ip !== undefined) return { kind: "parsed", value: { host: { ip }, port }, length };
  const hostname = address.toString("latin1").toLowerCase();
  if (!NAME.test(hostname)) return malformed(`hostname of ${address.length} bytes`);
  return { kind: "parsed", value: { host: { hostname }, port }, length };
}

/** Printable, without spaces: DNS decides the rest. */
const NAME = /^[!-~]+$/;

/** Where the address lies; `bytes` holds its type and what follows. */
function hostBytes(bytes: Buffer): { start: number; end: number } | undefined {
  const start = REQUEST_HEAD_BYTES;
  switch (bytes[3] ?? 0) {
    case IPV4:
      return { start, end: start + 4 };
    case IPV6:
      return { start, end: start + 16 };
    case HOSTNAME:
      return { start: start + 1, end: start + 1 + bytes[start]! };
    default:
      return undefined;
  }
}

/** The reply to a request; the address we connected from is our own business. */
export function encodeReply(reply: SocksReply): Buffer {
  return Buffer.of(VERSION, reply, 0, IPV4, 0, 0, 0, 0, 0, 0);
}

function wrongVersion(version: number): SocksParse<never> {
  return malformed(`version ${version}`, SocksReply.generalFailure);
}

function malformed(what: string, reply: SocksReply = SocksReply.generalFailure): SocksParse<never> {
  return { kind: "malformed", reason: `SOCKS ${what} is not supported`, reply };
}
