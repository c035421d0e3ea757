// An IP address and a port, with the one text form used on the wire, in logs and as map keys.

import { type Ip, ipFamily, parseIp } from "./ip.ts";

export interface SocketAddress {
  readonly ip: Ip;
  readonly port: number;
}

/** `10.0.0.1:80` or `[fd00::1]:80`. */
export function formatSocketAddress({ ip, port }: SocketAddress): string {
  return ipFamily(ip) === 6 ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** Splits `host:port` or `[v6]:port` (RFC 3986 authority without userinfo); undefined when malformed. */
export function splitHostPort(text: string): { host: string; port: number } | undefined {
  const colon = text.lastIndexOf(":");
  if (colon <= 0) return undefined;
  const port = parsePort(text.slice(colon + 1));
  const host = unbracket(text.slice(0, colon));
  return port === undefined || host === undefined ? undefined : { host, port };
}

/** Parses `ip:port` or `[v6]:port`; undefined when the host is not an IP address. */
export function parseSocketAddress(text: string): SocketAddress | undefined {
  const parts = splitHostPort(text);
  const ip = parts && parseIp(parts.host);
  return ip && parts ? { ip, port: parts.port } : undefined;
}

/** A decimal port 0..65535 without sign or leading blanks. */
export function parsePort(text: string): number | undefined {
  if (text.length === 0 || text.length > 5) return undefined;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 48 || code > 57) return undefined;
  }
  const port = Number(text);
  return port <= 65535 ? port : undefined;
}

function unbracket(host: string): string | undefined {
  if (host.startsWith("["))
    return host.endsWith("]") && host.length > 2 ? host.slice(1, -1) : undefined;
  return host.includes(":") ? undefined : host;
}
