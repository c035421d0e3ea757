// Which header lists make a well-formed request, response or trailer (RFC 9113 §8.2, §8.3, §8.5). Knows
// nothing of what a message means; a malformed one ends its stream with PROTOCOL_ERROR.

import type { HeaderField } from "./hpack-table.ts";

/** RFC 9113 §8.2.2: what HTTP/1.1 says of its connection has no place here. */
const CONNECTION_SPECIFIC: ReadonlySet<string> = new Set([
  "connection",
  "proxy-connection",
  "keep-alive",
  "transfer-encoding",
  "upgrade",
]);

/** Why a list is malformed; undefined when it is in order. */
export type Fault = string | undefined;

/**
 * A request's head. A CONNECT without `:authority` is let through: its handler answers 400, as
 * Istio's does.
 */
export function requestFault(fields: readonly HeaderField[]): Fault {
  let method: string | undefined;
  let scheme: string | undefined;
  let path: string | undefined;
  let authority: string | undefined;
  let at = 0;
  for (; at < fields.length && isPseudo(fields[at]!.name); at++) {
    const { name, value } = fields[at]!;
    if (name === ":method" && method === undefined) method = value;
    else if (name === ":scheme" && scheme === undefined) scheme = value;
    else if (name === ":path" && path === undefined) path = value;
    else if (name === ":authority" && authority === undefined) authority = value;
    else return `${name} is unknown or appears twice`;
  }
  return targetFault(method, scheme, path) ?? regularFault(fields, at);
}

/** RFC 9113 §8.3.1; for CONNECT §8.5: no scheme and no path. */
function targetFault(method?: string, scheme?: string, path?: string): Fault {
  if (!method) return ":method is missing";
  if (method === "CONNECT") {
    const bare = scheme === undefined && path === undefined;
    return bare ? undefined : "CONNECT takes no :scheme and no :path";
  }
  if (!scheme) return ":scheme is missing";
  return path ? undefined : ":path is missing";
}

/** A response's head: one three-digit `:status`, then regular fields. */
export function responseFault(fields: readonly HeaderField[]): Fault {
  const [first] = fields;
  if (first?.name !== ":status") return ":status is missing";
  if (first.value.length !== 3 || !isDecimal(first.value)) return `:status is "${first.value}"`;
  return regularFault(fields, 1);
}

export function trailersFault(fields: readonly HeaderField[]): Fault {
  return regularFault(fields, 0);
}

/** Everything from `start` on must be a regular field. */
function regularFault(fields: readonly HeaderField[], start: number): Fault {
  for (let i = start; i < fields.length; i++) {
    const { name, value } = fields[i]!;
    if (isPseudo(name)) return `${name} has no place there`;
    if (!isFieldName(name)) return `"${name}" is not a header name`;
    if (CONNECTION_SPECIFIC.has(name)) return `${name} is of HTTP/1.1 connections`;
    if (name === "te" && value.toLowerCase() !== "trailers") return "te may only say trailers";
    if (!isFieldValue(value)) return `${name} holds a forbidden character`;
  }
  return undefined;
}

/** The body's length as promised; undefined without promise, "invalid" when it is no one number. */
export function contentLength(fields: readonly HeaderField[]): number | undefined | "invalid" {
  let found: string | undefined;
  for (const { name, value } of fields) {
    if (name !== "content-length") continue;
    if (found !== undefined || !isDecimal(value)) return "invalid";
    found = value;
  }
  return found === undefined ? undefined : Number(found);
}

/** More digits than these are not exact in a double. */
const DIGITS_MAX = 15;

function isDecimal(text: string): boolean {
  if (text.length === 0 || text.length > DIGITS_MAX) return false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x30 || code > 0x39) return false;
  }
  return true;
}

const COLON = 0x3a;

function isPseudo(name: string): boolean {
  return name.charCodeAt(0) === COLON;
}

/** RFC 9113 §8.2.1: visible ASCII, no upper case, no colon. */
function isFieldName(name: string): boolean {
  if (name.length === 0) return false;
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i);
    if (code <= 0x20 || code >= 0x7f || code === COLON || (code >= 0x41 && code <= 0x5a)) {
      return false;
    }
  }
  return true;
}

/** RFC 9113 §8.2.1: no NUL, CR or LF, and no blank at either end. */
function isFieldValue(value: string): boolean {
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i);
    if (code === 0 || code === 0x0a || code === 0x0d) return false;
  }
  return !isBlank(value.charCodeAt(0)) && !isBlank(value.charCodeAt(value.length - 1));
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
