// The PROXY protocol, version 2 (HAProxy's proxy-protocol.txt §2.2, §2.3): a header before a connection's
// own bytes that says who is on it. We write what ztunnel writes, and read only that version.

import { type Ip, ipFamily, ipFromBytes, ipToBytes } from "./ip.ts";
import type { SocketAddress } from "./socket-address.ts";

/** The TLV in which ztunnel tells the peer's SPIFFE identity. */
export const TLV_IDENTITY = 0xd0;

/** A header without addresses is one of a connection whose ends are of different families. */
export interface ProxyHeader {
  readonly source?: SocketAddress;
  readonly destination?: SocketAddress;
  /** Type to value. */
  readonly tlvs: ReadonlyMap<number, Buffer>;
}

/** The longest header we read: an identity is far shorter, and a peer may not make us wait for 64 KiB. */
export const PROXY_HEADER_BYTES_MAX = 4_096;

const SIGNATURE = Buffer.from("0d0a0d0a000d0a515549540a", "hex");
const FIXED_BYTES = 16;
const VERSION_2_PROXY = 0x21;
const VERSION_2_LOCAL = 0x20;
/** Address family in the upper half, and STREAM in the lower. */
const UNSPECIFIED_STREAM = 0x01;
const INET_STREAM = 0x11;
const INET6_STREAM = 0x21;
const TLV_HEAD_BYTES = 3;

/** The header of a connection from `source` to `destination`. */
export function encodeProxyHeader(
  source: SocketAddress,
  destination: SocketAddress,
  tlvs: ReadonlyMap<number, string>,
): Buffer {
  const family = ipFamily(source.ip);
  const same = family === ipFamily(destination.ip);
  const addresses = same ? encodeAddresses(source, destination) : Buffer.alloc(0);
  const body = Buffer.concat([addresses, ...[...tlvs].map(encodeTlv)]);
  const fixed = Buffer.alloc(FIXED_BYTES);
  SIGNATURE.copy(fixed);
  fixed[12] = VERSION_2_PROXY;
  fixed[13] = same ? (family === 4 ? INET_STREAM : INET6_STREAM) : UNSPECIFIED_STREAM;
  fixed.writeUInt16BE(body.length, 14);
  return Buffer.concat([fixed, body]);
}

function encodeAddresses(source: SocketAddress, destination: SocketAddress): Buffer {
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(source.port, 0);
  ports.writeUInt16BE(destination.port, 2);
  return Buffer.concat([ipToBytes(source.ip), ipToBytes(destination.ip), ports]);
}

function encodeTlv([type, text]: readonly [number, string]): Buffer {
  const value = Buffer.from(text);
  const head = Buffer.alloc(TLV_HEAD_BYTES);
  head[0] = type;
  head.writeUInt16BE(value.length, 1);
  return Buffer.concat([head, value]);
}

export type ParsedProxyHeader =
  | { readonly kind: "header"; readonly header: ProxyHeader; readonly length: number }
  | { readonly kind: "incomplete" }
  | { readonly kind: "malformed"; readonly reason: string };

const INCOMPLETE = { kind: "incomplete" } as const;

/** Reads the header at the start of `bytes`; the connection's own bytes follow after `length`. */
export function parseProxyHeader(bytes: Buffer): ParsedProxyHeader {
  const begun = Math.min(bytes.length, SIGNATURE.length);
  if (SIGNATURE.compare(bytes, 0, begun, 0, begun) !== 0) {
    return malformed("no PROXY protocol version 2 signature");
  }
  if (bytes.length < FIXED_BYTES) return INCOMPLETE;
  const command = bytes[12]!;
  if (command !== VERSION_2_PROXY && command !== VERSION_2_LOCAL) {
    return malformed(`version and command 0x${command.toString(16)}`);
  }
  const length = FIXED_BYTES + bytes.readUInt16BE(14);
  if (length > PROXY_HEADER_BYTES_MAX) return malformed(`header of ${length} bytes`);
  if (bytes.length < length) return INCOMPLETE;
  return parseBody(bytes[13]!, bytes.subarray(FIXED_BYTES, length), length);
}

function parseBody(familyByte: number, body: Buffer, length: number): ParsedProxyHeader {
  const ipBytes = { [INET_STREAM]: 4, [INET6_STREAM]: 16, [UNSPECIFIED_STREAM]: 0 }[familyByte];
  if (ipBytes === undefined) return malformed(`address family 0x${familyByte.toString(16)}`);
  const addressBytes = ipBytes === 0 ? 0 : 2 * ipBytes + 4;
  if (body.length < addressBytes) return malformed("addresses are cut off");
  const tlvs = parseTlvs(body.subarray(addressBytes));
  if (tlvs === undefined) return malformed("a TLV is cut off");
  if (ipBytes === 0) return { kind: "header", header: { tlvs }, length };
  const address = (index: 0 | 1): SocketAddress => ({
    ip: ipOf(body.subarray(index * ipBytes, (index + 1) * ipBytes)),
    port: body.readUInt16BE(2 * ipBytes + 2 * index),
  });
  return { kind: "header", header: { source: address(0), destination: address(1), tlvs }, length };
}

/** The first of several TLVs of one type counts. */
function parseTlvs(bytes: Buffer): Map<number, Buffer> | undefined {
  const tlvs = new Map<number, Buffer>();
  let at = 0;
  while (at < bytes.length) {
    if (bytes.length - at < TLV_HEAD_BYTES) return undefined;
    const end = at + TLV_HEAD_BYTES + bytes.readUInt16BE(at + 1);
    if (end > bytes.length) return undefined;
    const type = bytes[at]!;
    if (!tlvs.has(type)) tlvs.set(type, bytes.subarray(at + TLV_HEAD_BYTES, end));
    at = end;
  }
  return tlvs;
}

function ipOf(bytes: Buffer): Ip {
  return ipFromBytes(bytes)!;
}

function malformed(reason: string): ParsedProxyHeader {
  return { kind: "malformed", reason: `malformed PROXY header: ${reason}` };
}
