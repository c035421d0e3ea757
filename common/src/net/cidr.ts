// A CIDR block. A bare address is a block of one.

import { type Ip, ipFamily, ipFromBytes, ipToBytes, parseIp } from "./ip.ts";

export interface Cidr {
  readonly ip: Ip;
  readonly prefixLength: number;
}

/** Parses `10.0.0.0/8`, `fd00::/8` or a bare address; undefined when malformed. Host bits are cleared. */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf("/");
  const ip = parseIp(slash < 0 ? text : text.slice(0, slash));
  if (ip === undefined) return undefined;
  const bits = ipFamily(ip) === 4 ? 32 : 128;
  if (slash < 0) return { ip, prefixLength: bits };
  const suffix = text.slice(slash + 1);
  if (!/^\d{1,3}$/.test(suffix)) return undefined;
  return makeCidr(ip, Number(suffix));
}

/** A block from an address and a length in bits; undefined when the length exceeds the family's. */
export function makeCidr(ip: Ip, prefixLength: number): Cidr | undefined {
  const bytes = ipToBytes(ip);
  if (prefixLength < 0 || prefixLength > bytes.length * 8) return undefined;
  for (let i = 0; i < bytes.length; i++) {
    const kept = Math.min(8, Math.max(0, prefixLength - i * 8));
    bytes[i] = bytes[i]! & (0xff << (8 - kept)) & 0xff;
  }
  const network = ipFromBytes(bytes);
  return network && ipFamily(network) === ipFamily(ip) ? { ip: network, prefixLength } : undefined;
}

/** True when `ip` lies in the block; families never match each other. Makes no garbage for IPv4. */
export function cidrContains(cidr: Cidr, ip: Ip): boolean {
  const { ip: network, prefixLength } = cidr;
  if (ipFamily(network) !== ipFamily(ip)) return false;
  if (prefixLength === 0) return true;
  if (ipFamily(ip) === 4) return (ipv4Bits(network) ^ ipv4Bits(ip)) >>> (32 - prefixLength) === 0;
  return sameBits(ipToBytes(network), ipToBytes(ip), prefixLength);
}

/** The 32 bits of a dotted quad, as a signed number. */
function ipv4Bits(ip: Ip): number {
  let bits = 0;
  let octet = 0;
  for (let i = 0; i < ip.length; i++) {
    const code = ip.charCodeAt(i);
    if (code === DOT) {
      bits = (bits << 8) | octet;
      octet = 0;
    } else octet = octet * 10 + code - ZERO;
  }
  return (bits << 8) | octet;
}

const DOT = 46;
const ZERO = 48;

function sameBits(a: Uint8Array, b: Uint8Array, count: number): boolean {
  const whole = count >> 3;
  for (let i = 0; i < whole; i++) if (a[i] !== b[i]) return false;
  const rest = count & 7;
  return rest === 0 || (a[whole]! ^ b[whole]!) >> (8 - rest) === 0;
}

export function formatCidr({ ip, prefixLength }: Cidr): string {
  return `${ip}/${prefixLength}`;
}
