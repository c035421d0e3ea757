// Joins HEADERS and CONTINUATION into header blocks and decodes them (RFC 9113 §4.3, §6.2, §6.10).
// Owns the HPACK state of the receiving direction.

import { type HeaderBlock, HpackDecoder } from "./hpack-decoder.ts";
import type { Http2Limits } from "./limits.ts";
import { ConnectionError, ErrorCode, Flag } from "./protocol.ts";
import { INITIAL_SETTINGS } from "./settings.ts";

export interface DecodedHeaders extends HeaderBlock {
  readonly streamId: number;
  readonly endStream: boolean;
}

interface Pending {
  readonly streamId: number;
  readonly endStream: boolean;
  readonly parts: Buffer[];
  bytes: number;
}

const PRIORITY_BYTES = 5;

export class HeaderBlocks {
  readonly #limits: Http2Limits;
  readonly #decoder: HpackDecoder;
  #pending: Pending | undefined;

  constructor(limits: Http2Limits) {
    this.#limits = limits;
    this.#decoder = new HpackDecoder(INITIAL_SETTINGS.headerTableBytes, limits.headerListBytesMax);
  }

  /** Between HEADERS and the end of its block no other frame may come. */
  get open(): boolean {
    return this.#pending !== undefined;
  }

  /** A HEADERS frame; the decoded block when it is whole. Throws ConnectionError. */
  headers(flags: number, streamId: number, payload: Buffer): DecodedHeaders | undefined {
    const block = stripPadding(flags, payload);
    const priority = flags & Flag.PRIORITY ? PRIORITY_BYTES : 0;
    if (block.length < priority) {
      throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS cut short");
    }
    if (priority > 0 && (block.readUInt32BE(0) & 0x7fffffff) === streamId) {
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself");
    }
    const endStream = (flags & Flag.END_STREAM) !== 0;
    this.#pending = { streamId, endStream, parts: [], bytes: 0 };
    return this.#add(this.#pending, flags, block.subarray(priority));
  }

  /** A CONTINUATION frame; the decoded block when it is whole. Throws ConnectionError. */
  continuation(flags: number, streamId: number, payload: Buffer): DecodedHeaders | undefined {
    if (this.#pending?.streamId !== streamId) {
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS");
    }
    return this.#add(this.#pending, flags, payload);
  }

  #add(pending: Pending, flags: number, part: Buffer): DecodedHeaders | undefined {
    pending.bytes += part.length;
    const { headerBlockBytesMax, continuationsMax } = this.#limits;
    if (pending.bytes > headerBlockBytesMax || pending.parts.length > continuationsMax) {
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "header block too large");
    }
    if ((flags & Flag.END_HEADERS) === 0) {
      pending.parts.push(Buffer.from(part));
      return undefined;
    }
    this.#pending = undefined;
    const whole = pending.parts.length === 0 ? part : Buffer.concat([...pending.parts, part]);
    const { streamId, endStream } = pending;
    return { ...this.#decoder.decode(whole), streamId, endStream };
  }
}

function stripPadding(flags: number, payload: Buffer): Buffer {
  if ((flags & Flag.PADDED) === 0) return payload;
  const padding = payload[0];
  if (padding === undefined) {
    throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "padding length missing");
  }
  if (padding >= payload.length) {
    throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "padding exceeds the frame");
  }
  return payload.subarray(1, payload.length - padding);
}
