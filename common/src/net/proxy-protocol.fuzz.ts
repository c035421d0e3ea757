// PROXY headers, from any peer.

import { assert } from "../process/assert.ts";
import { encodeProxyHeader, parseProxyHeader, TLV_IDENTITY } from "./proxy-protocol.ts";
import { parseSocketAddress } from "./socket-address.ts";

export const name = "proxy-protocol";

export function corpus(): Uint8Array[] {
  const tlvs = new Map([[TLV_IDENTITY, "spiffe://cluster.local/ns/ns/sa/a"]]);
  return [
    ["10.0.0.1:4000", "10.0.0.2:80"],
    ["[fd00::1]:4000", "[fd00::2]:80"],
    ["10.0.0.1:4000", "[fd00::2]:80"],
  ].map(([from, to]) =>
    encodeProxyHeader(parseSocketAddress(from!)!, parseSocketAddress(to!)!, tlvs),
  );
}

export function fuzz(data: Uint8Array): void {
  const parsed = parseProxyHeader(Buffer.from(data));
  if (parsed.kind !== "header") return;
  assert(parsed.length <= data.length, "a header is no longer than its bytes");
  for (const value of parsed.header.tlvs.values()) {
    assert(value.length < parsed.length, "a value lies within its header");
  }
}
