// What an attacker sends without the help of connect(): data with the SYN, and SYNs made by hand.

import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { ipToBytes } from "@ambit/common/net/ip.ts";
import * as linux from "@ambit/common/sys/constants.ts";
import {
  addressOf,
  call,
  callRaw,
  closeFd,
  lastErrno,
  SystemError,
} from "@ambit/common/sys/libc.ts";
import { inNetns } from "@ambit/common/sys/netns.ts";
import { encodeSockaddr } from "@ambit/common/sys/sockaddr.ts";
import type { TestPlace } from "./test-network.ts";

/** sendto() that connects, and sends its data with the SYN where it may (RFC 7413). */
export const MSG_FASTOPEN = 0x2000_0000;
/** Of raw sockets: the packet begins with an IP header. */
const IPPROTO_RAW = 255;
/** struct msghdr on 64-bit machines. */
const MSGHDR_BYTES = 56;
const IP_HEADER_BYTES = 20;
const TCP_HEADER_BYTES = 20;

/** Of a TCP header (RFC 9293 section 3.1). */
export const TCP_FLAG = { FIN: 0x01, SYN: 0x02, PSH: 0x08, ACK: 0x10 } as const;

/** Throws SystemError, but for EINPROGRESS. */
export function sendTo(fd: number, to: SocketAddress, data: Buffer, flags = 0): void {
  const name = encodeSockaddr(to);
  const iovec = Buffer.alloc(16);
  iovec.writeBigUInt64LE(addressOf(data), 0);
  iovec.writeBigUInt64LE(BigInt(data.length), 8);
  const header = Buffer.alloc(MSGHDR_BYTES);
  header.writeBigUInt64LE(addressOf(name), 0);
  header.writeUInt32LE(name.length, 8);
  header.writeBigUInt64LE(addressOf(iovec), 16);
  header.writeBigUInt64LE(1n, 24);
  if (callRaw("sendmsg", fd, header, flags) >= 0) return;
  if (lastErrno() !== linux.EINPROGRESS) throw new SystemError("sendmsg", lastErrno());
}

/** A SYN over IPv4 from any address and port. */
export function sendSyn(place: TestPlace, from: SocketAddress, to: SocketAddress): void {
  sendSegment(place, from, to, TCP_FLAG.SYN);
}

/** A TCP header with these flags, and nothing after it. */
export function sendSegment(
  place: TestPlace,
  from: SocketAddress,
  to: SocketAddress,
  flags: number,
): void {
  const fd = inNetns(place.netns.fd, () =>
    call("socket", "raw", linux.AF_INET, linux.SOCK_RAW, IPPROTO_RAW),
  );
  try {
    sendTo(fd, { ...to, port: 0 }, packetOf(from, to, flags));
  } finally {
    closeFd(fd);
  }
}

/** The kernel fills in the IP header's length and checksum. */
function packetOf(from: SocketAddress, to: SocketAddress, flags: number): Buffer {
  const packet = Buffer.alloc(IP_HEADER_BYTES + TCP_HEADER_BYTES);
  packet[0] = 0x45;
  packet[8] = 64;
  packet[9] = linux.IPPROTO_TCP;
  packet.set(ipToBytes(from.ip), 12);
  packet.set(ipToBytes(to.ip), 16);
  const segment = packet.subarray(IP_HEADER_BYTES);
  segment.writeUInt16BE(from.port, 0);
  segment.writeUInt16BE(to.port, 2);
  segment[12] = (TCP_HEADER_BYTES / 4) << 4;
  segment[13] = flags;
  segment.writeUInt16BE(0xffff, 14);
  segment.writeUInt16BE(checksum(packet.subarray(12), linux.IPPROTO_TCP + TCP_HEADER_BYTES), 16);
  return packet;
}

/** RFC 1071, of 16-bit words and a number that goes before them. */
function checksum(words: Buffer, before: number): number {
  let sum = before;
  for (let at = 0; at < words.length; at += 2) sum += words.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
