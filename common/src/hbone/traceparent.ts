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
  return header !== undefined && isTraceparent(header) ? header : newTraceparent();
}

/** Exactly 55 characters in four hexadecimal parts, ids not all zero (W3C Trace Context §3.2). */
export function parseTraceparent(header: string): Traceparent | undefined {
  if (!isTraceparent(header)) return undefined;
  const [, traceId, spanId, flags] = header.split("-") as [string, string, string, string];
  return { traceId, spanId, flags };
}

/** Where the dashes are: after the version, the trace id and the span id. */
const DASHES = [2, 35, 52] as const;

/** By character, not by expression: asked for every connection. */
function isTraceparent(header: string): boolean {
  if (header.length !== TRACEPARENT_LENGTH || header.startsWith("ff")) return false;
  for (let i = 0; i < TRACEPARENT_LENGTH; i++) {
    const code = header.charCodeAt(i);
    const dash = i === DASHES[0] || i === DASHES[1] || i === DASHES[2];
    if (dash ? code !== DASH : !isHexDigit(code)) return false;
  }
  return !isZero(header, DASHES[0], DASHES[1]) && !isZero(header, DASHES[1], DASHES[2]);
}

const DASH = 0x2d;
const DIGIT_0 = 0x30;

/** Lower case, as the standard asks for. */
function isHexDigit(code: number): boolean {
  return (code >= DIGIT_0 && code <= 0x39) || (code >= 0x61 && code <= 0x66);
}

/** Whether there are only zeros between two places. */
function isZero(header: string, before: number, after: number): boolean {
  for (let i = before + 1; i < after; i++) if (header.charCodeAt(i) !== DIGIT_0) return false;
  return true;
}
