// W3C trace context of a connection: version 00, never sampled, random ids (ztunnel §1.3).

import { randomBytes } from "node:crypto";

const TRACEPARENT_LENGTH = 55;

export interface Traceparent {
  readonly traceId: string;
  readonly spanId: string;
  readonly flags: string;
}

export function newTraceparent(): string {
  return `00-${randomBytes(16).toString("hex")}-${randomBytes(8).toString("hex")}-00`;
}

/** Exactly 55 characters in four hexadecimal parts, ids not all zero (W3C Trace Context §3.2). */
export function parseTraceparent(header: string): Traceparent | undefined {
  if (header.length !== TRACEPARENT_LENGTH) return undefined;
  const match = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(header);
  const [, traceId, spanId, flags] = match ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  if (header.startsWith("ff") || /^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, flags };
}
