// W3C trace context of a connection: version 00, never sampled, random ids (ztunnel §1.3).

import { randomFillSync } from "node:crypto";

const TRACEPARENT_LENGTH = 55;

export interface Traceparent {
  readonly traceId: string;
  readonly spanId: string;
  readonly flags: string;
}

const TRACE_ID_BYTES = 16;
const SPAN_ID_BYTES = 8;
/** One call to the generator serves this many connections: it costs as much as the bytes. */
const IDS_PER_DRAW = 128;

const drawn = Buffer.alloc((TRACE_ID_BYTES + SPAN_ID_BYTES) * IDS_PER_DRAW);
let used = drawn.length;

export function newTraceparent(): string {
  if (used === drawn.length) {
    randomFillSync(drawn);
    used = 0;
  }
  const spanStart = used + TRACE_ID_BYTES;
  const end = spanStart + SPAN_ID_BYTES;
  const text = `00-${drawn.toString("hex", used, spanStart)}-${drawn.toString("hex", spanStart, end)}-00`;
  used = end;
  return text;
}

/** The id that both ends of a connection share: the trace id of a well-formed header. */
export function traceIdOf(traceparent: string): string {
  return traceparent.slice("00-".length, "00-".length + 2 * TRACE_ID_BYTES);
}

/** What a peer sent, when it is well-formed, or else a new one (ztunnel §1.4). */
export function traceparentFrom(header: string | undefined): string {
  return header !== undefined && parseTraceparent(header) !== undefined ? header : newTraceparent();
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
