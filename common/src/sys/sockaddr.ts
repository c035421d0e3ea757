// struct sockaddr_in and sockaddr_in6, both ways. Buffers are the caller's to reuse.

import { endianness } from "node:os";
import { assert } from "../process/assert.ts";
import { type IpFamily, ipFamily, ipFromBytes, ipToBytes, ipv4At, putIpv4 } from "../net/ip.ts";
import type { SocketAddress } from "../net/socket-address.ts";
import { AF_INET, AF_INET6 } from "./constants.ts";

assert(endianness() === "LE", "the supported machines are little-endian");

export const SOCKADDR_BYTES_MAX = 28;
const SOCKADDR_IN_BYTES = 16;

/** Encodes an address; `family` 6 with an IPv4 address writes the v4-mapped form. */
export function encodeSockaddr(address: SocketAddress, family = ipFamily(address.ip)): Buffer {
  const buffer = Buffer.allocUnsafe(family === 4 ? SOCKADDR_IN_BYTES : SOCKADDR_BYTES_MAX);
  putSockaddr(address, family, buffer);
  return buffer;
}

/** The same into a buffer that is large enough; returns how many bytes that took. */
export function putSockaddr({ ip, port }: SocketAddress, family: IpFamily, buffer: Buffer): number {
  const length = family === 4 ? SOCKADDR_IN_BYTES : SOCKADDR_BYTES_MAX;
  buffer.fill(0, 0, length);
  buffer.writeUInt16LE(family === 4 ? AF_INET : AF_INET6, 0);
  buffer.writeUInt16BE(port, 2);
  if (family === 4) putIpv4(ip, buffer, 4);
  else if (ipFamily(ip) === 6) buffer.set(ipToBytes(ip), 8);
  else {
    buffer.fill(0xff, 18, 20);
    putIpv4(ip, buffer, 20);
  }
  return length;
}

/** Decodes an address; undefined for other families. v4-mapped comes back as IPv4. */
export function decodeSockaddr(buffer: Buffer): SocketAddress | undefined {
  const family = buffer.readUInt16LE(0);
  const port = buffer.readUInt16BE(2);
  if (family === AF_INET) return { ip: ipv4At(buffer, 4), port };
  const ip = family === AF_INET6 ? ipFromBytes(buffer.subarray(8, 24)) : undefined;
  return ip && { ip, port };
}
