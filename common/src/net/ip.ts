// IP addresses as canonical text: one spelling per address, so they can be map keys.
// v4-mapped IPv6 is always folded to IPv4. Does not resolve names.

import { isIPv4, isIPv6 } from "node:net";

/** A canonical IP address: dotted quad, or RFC 5952 lower-case IPv6 without a zone. */
export type Ip = string & { readonly __brand: "Ip" };

export type IpFamily = 4 | 6;

const V4_MAPPED = "::ffff:";

/** Parses an address in any spelling; undefined when it is none. A zone (`%eth0`) is refused. */
export function parseIp(text: string): Ip | undefined {
  if (isIPv4(text)) return text as Ip;
  // How dual-stack sockets report IPv4 peers: on the path of every connection.
  if (text.startsWith(V4_MAPPED) && isIPv4(text.slice(V4_MAPPED.length))) {
    return text.slice(V4_MAPPED.length) as Ip;
  }
  if (!isIPv6(text) || text.includes("%")) return undefined;
  return ipFromBytes(ipv6TextToBytes(text));
}

/** Builds an address from 4 or 16 network-order bytes; undefined for any other length. */
export function ipFromBytes(bytes: Uint8Array): Ip | undefined {
  if (bytes.length === 4) return ipv4At(bytes, 0);
  if (bytes.length !== 16) return undefined;
  if (isV4Mapped(bytes)) return ipFromBytes(bytes.subarray(12));
  return formatIpv6(bytes);
}

/** The IPv4 address in the four bytes from `at`. */
export function ipv4At(bytes: Uint8Array, at: number): Ip {
  return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}` as Ip;
}

/** Network-order bytes of a canonical address: 4 or 16 of them. */
export function ipToBytes(ip: Ip): Uint8Array {
  if (ipFamily(ip) === 6) return ipv6TextToBytes(ip);
  const bytes = new Uint8Array(4);
  putIpv4(ip, bytes, 0);
  return bytes;
}

/** Writes the four bytes of a canonical IPv4 address from `at`; these must be 0. */
export function putIpv4(ip: Ip, bytes: Uint8Array, at: number): void {
  let octet = at;
  for (let i = 0; i < ip.length; i++) {
    const code = ip.charCodeAt(i);
    if (code === DOT) octet++;
    else bytes[octet] = bytes[octet]! * 10 + code - DIGIT_0;
  }
}

const DOT = 0x2e;
const DIGIT_0 = 0x30;

export function ipFamily(ip: Ip): IpFamily {
  return ip.includes(":") ? 6 : 4;
}

/** True for 127.0.0.0/8 and ::1. */
export function isLoopback(ip: Ip): boolean {
  return ip === "::1" || (ip.startsWith("127.") && ipFamily(ip) === 4);
}

export function loopback(family: IpFamily): Ip {
  return (family === 4 ? "127.0.0.1" : "::1") as Ip;
}

function isV4Mapped(bytes: Uint8Array): boolean {
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return false;
  return bytes[10] === 0xff && bytes[11] === 0xff;
}

/** `text` is known to be valid IPv6 (isIPv6 said so). */
function ipv6TextToBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(16);
  const [head, tail] = text.split("::") as [string, string?];
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  bytes.set(left, 0);
  bytes.set(right, 16 - right.length);
  return bytes;
}

/** The bytes of colon-separated groups; the last may be a dotted quad. */
function groups(text: string): number[] {
  const bytes: number[] = [];
  for (const group of text === "" ? [] : text.split(":")) {
    if (group.includes(".")) bytes.push(...group.split(".").map(Number));
    else bytes.push(parseInt(group, 16) >> 8, parseInt(group, 16) & 0xff);
  }
  return bytes;
}

/** RFC 5952: lower case, no leading zeros, the first longest run of two or more zero groups is `::`. */
function formatIpv6(bytes: Uint8Array): Ip {
  const words: number[] = [];
  for (let i = 0; i < 16; i += 2) words.push((bytes[i]! << 8) | bytes[i + 1]!);
  let best = { start: 8, length: 1 };
  for (let start = 0; start < 8; start++) {
    let end = start;
    while (end < 8 && words[end] === 0) end++;
    if (end - start > best.length) best = { start, length: end - start };
  }
  const hex = (part: number[]) => part.map((word) => word.toString(16)).join(":");
  if (best.length < 2) return hex(words) as Ip;
  return `${hex(words.slice(0, best.start))}::${hex(words.slice(best.start + best.length))}` as Ip;
}
