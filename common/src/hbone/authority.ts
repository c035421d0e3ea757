// The :authority of an HBONE CONNECT: an address with port, or a hostname with port (RFC 9113 §8.5).

import { type Ip, parseIp } from "../net/ip.ts";
import { splitHostPort } from "../net/socket-address.ts";

export type Authority =
  | { readonly kind: "address"; readonly ip: Ip; readonly port: number }
  | { readonly kind: "hostname"; readonly hostname: string; readonly port: number };

const HOSTNAME_LENGTH_MAX = 253;
const HOSTNAME =
  /^[A-Za-z0-9_*]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$/;

/** undefined without host or port, or when the host is neither an address nor a DNS name. */
export function parseAuthority(text: string): Authority | undefined {
  const parts = splitHostPort(text);
  if (parts === undefined || parts.port === 0) return undefined;
  const { host, port } = parts;
  const ip = parseIp(host);
  if (ip !== undefined) return { kind: "address", ip, port };
  if (host.length > HOSTNAME_LENGTH_MAX || !HOSTNAME.test(host)) return undefined;
  return { kind: "hostname", hostname: host.toLowerCase(), port };
}
