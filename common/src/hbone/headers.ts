// The header lists of CONNECT requests and answers, as maps. Repeated names join with commas
// (RFC 9110 §5.3). What makes a list well-formed is http2/message-rules' to say.

import type { HeaderField } from "../http2/hpack-table.ts";

export type Headers = ReadonlyMap<string, string>;

export function headersFromFields(fields: readonly HeaderField[]): Headers {
  const headers = new Map<string, string>();
  for (const { name, value } of fields) {
    const before = headers.get(name);
    headers.set(name, before === undefined ? value : `${before},${value}`);
  }
  return headers;
}
