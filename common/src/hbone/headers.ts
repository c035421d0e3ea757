// The header lists of CONNECT requests and answers, as maps. Repeated names join with commas
// (RFC 9110 §5.3); names that HTTP/2 forbids make the request malformed.

import type { HeaderField } from "../http2/hpack-table.ts";

export type Headers = ReadonlyMap<string, string>;

/** undefined when malformed: an upper-case or connection-specific name, or a pseudo-header misplaced. */
export function headersFromFields(fields: readonly HeaderField[]): Headers | undefined {
  const headers = new Map<string, string>();
  let regularSeen = false;
  for (const { name, value } of fields) {
    const pseudo = name.startsWith(":");
    if (pseudo && (regularSeen || headers.has(name))) return undefined;
    if (!pseudo) regularSeen = true;
    if (FORBIDDEN.has(name) || !isLowerCaseName(name)) return undefined;
    const before = headers.get(name);
    headers.set(name, before === undefined ? value : `${before},${value}`);
  }
  return headers;
}

/** RFC 9113 §8.2.2. */
const FORBIDDEN = new Set([
  "connection",
  "proxy-connection",
  "keep-alive",
  "transfer-encoding",
  "upgrade",
]);

function isLowerCaseName(name: string): boolean {
  if (name.length === 0) return false;
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i);
    if (code <= 0x20 || code >= 0x7f || (code >= 0x41 && code <= 0x5a)) return false;
  }
  return true;
}
