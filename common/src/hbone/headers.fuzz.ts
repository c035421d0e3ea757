// The header values of a CONNECT, from any peer: baggage, forwarded, authority, traceparent.

import { assert } from "../process/assert.ts";
import { parseAuthority } from "./authority.ts";
import { encodeBaggage, parseBaggage } from "./baggage.ts";
import { parseForwardedHost } from "./forwarded.ts";
import { parseTraceparent } from "./traceparent.ts";

export const name = "hbone-headers";

export function corpus(): Uint8Array[] {
  return [
    "k8s.cluster.name=c,k8s.namespace.name=n,k8s.deployment.name=d,service.name=s",
    'for="10.0.0.1:80";host="a.b.c";proto=x',
    "[fd00::1]:443",
    `00-${"1".repeat(32)}-${"2".repeat(16)}-00`,
    `00-${"0".repeat(52)}`,
  ].map((text) => Buffer.from(text));
}

export function fuzz(data: Uint8Array): void {
  const text = Buffer.from(data).toString("latin1");
  const baggage = parseBaggage(text);
  const again = parseBaggage(encodeBaggage(baggage));
  assert(
    JSON.stringify(again) === JSON.stringify(parseBaggage(encodeBaggage(again))),
    "baggage settles",
  );
  const host = parseForwardedHost(text);
  assert(host === undefined || host.length > 0, "a forwarded host is not empty");
  const authority = parseAuthority(text);
  assert(
    authority === undefined || (authority.port > 0 && authority.port <= 65_535),
    "a port is in range",
  );
  parseTraceparent(text);
}
