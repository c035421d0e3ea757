// How numbers and addresses are written in the programs' structures: addresses as sixteen bytes, an IPv4
// one in its IPv4-mapped form; ports in network byte order, everything else in the machine's (little-endian).

import { type Ip, ipFamily, ipFromBytes, ipToBytes } from "../net/ip.ts";
import type { SocketAddress } from "../net/socket-address.ts";
import { assert } from "../process/assert.ts";
import { STRUCTS } from "./bpf-layout.gen.ts";

export function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}

export function u64(value: bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(value);
  return buffer;
}

/** Sixteen bytes. */
export function addressBytes(ip: Ip): Uint8Array {
  const bytes = ipToBytes(ip);
  if (ipFamily(ip) === 6) return bytes;
  return Buffer.concat([Buffer.alloc(10), Buffer.alloc(2, 0xff), bytes]);
}

/** The address in the sixteen bytes at `offset`. */
export function readAddress(bytes: Buffer, offset: number): Ip {
  const ip = ipFromBytes(bytes.subarray(offset, offset + STRUCTS.address.bytes));
  assert(ip !== undefined, "sixteen bytes are an address");
  return ip;
}

/** `struct endpoint` at `offset`. */
export function writeEndpoint(bytes: Buffer, offset: number, { ip, port }: SocketAddress): void {
  bytes.set(addressBytes(ip), offset + STRUCTS.endpoint.ip);
  bytes.writeUInt16BE(port, offset + STRUCTS.endpoint.port);
}

/** `struct endpoint` at `offset`; undefined when it is all zero. */
export function readEndpoint(bytes: Buffer, offset: number): SocketAddress | undefined {
  const { endpoint } = STRUCTS;
  const port = bytes.readUInt16BE(offset + endpoint.port);
  if (port === 0) return undefined;
  return { ip: readAddress(bytes, offset + endpoint.ip), port };
}
