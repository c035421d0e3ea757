// The `forwarded` header of HBONE: the client's address and the service it meant (ztunnel §1.3, §1.4).

import { formatSocketAddress, type SocketAddress } from "../net/socket-address.ts";

/** `for="10.0.0.1:4000"`, and `;host=` when a service was the intended destination. */
export function encodeForwarded(client: SocketAddress, serviceHostname?: string): string {
  const host = serviceHostname === undefined ? "" : `;host=${serviceHostname}`;
  return `for="${formatSocketAddress(client)}"${host}`;
}

/** The text after `host=` up to `;`, quotes stripped; undefined when absent, empty or not ASCII. */
export function parseForwardedHost(header: string): string | undefined {
  const at = header.toLowerCase().indexOf("host=");
  if (at < 0) return undefined;
  const rest = header.slice(at + "host=".length);
  const end = rest.indexOf(";");
  const text = (end < 0 ? rest : rest.slice(0, end)).trim();
  const host =
    text.length >= 2 && text.startsWith('"') && text.endsWith('"') ? text.slice(1, -1) : text;
  return host !== "" && isPrintableAscii(host) ? host : undefined;
}

function isPrintableAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code <= 0x20 || code >= 0x7f) return false;
  }
  return true;
}
