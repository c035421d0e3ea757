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

/** True when `ip` lies in the block; families never match each other. */
export function cidrContains(cidr: Cidr, ip: Ip): boolean {
  if (ipFamily(cidr.ip) !== ipFamily(ip)) return false;
  return makeCidr(ip, cidr.prefixLength)?.ip === cidr.ip;
}

export function formatCidr({ ip, prefixLength }: Cidr): string {
  return `${ip}/${prefixLength}`;
}
