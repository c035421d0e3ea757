// struct sockaddr_in and sockaddr_in6, both ways. Buffers are the caller's to reuse.

import { endianness } from "node:os";
import { assert } from "../process/assert.ts";
import { ipFamily, ipFromBytes, ipToBytes } from "../net/ip.ts";
import type { SocketAddress } from "../net/socket-address.ts";
import { AF_INET, AF_INET6 } from "./constants.ts";

assert(endianness() === "LE", "the supported machines are little-endian");

export const SOCKADDR_BYTES_MAX = 28;
const SOCKADDR_IN_BYTES = 16;

/** Encodes an address; `family` 6 with an IPv4 address writes the v4-mapped form. */
export function encodeSockaddr({ ip, port }: SocketAddress, family = ipFamily(ip)): Buffer {
  const buffer = Buffer.alloc(family === 4 ? SOCKADDR_IN_BYTES : SOCKADDR_BYTES_MAX);
  buffer.writeUInt16LE(family === 4 ? AF_INET : AF_INET6, 0);
  buffer.writeUInt16BE(port, 2);
  const bytes = ipToBytes(ip);
  if (family === 4) buffer.set(bytes, 4);
  else if (bytes.length === 16) buffer.set(bytes, 8);
  else {
    buffer.fill(0xff, 18, 20);
    buffer.set(bytes, 20);
  }
  return buffer;
}

/** Decodes an address; undefined for other families. v4-mapped comes back as IPv4. */
export function decodeSockaddr(buffer: Buffer): SocketAddress | undefined {
  const family = buffer.readUInt16LE(0);
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  const ip = ipFromBytes(family === AF_INET ? buffer.subarray(4, 8) : buffer.subarray(8, 24));
  return ip && { ip, port: buffer.readUInt16BE(2) };
}
