// Cuts a byte stream into HTTP/2 frames. DATA payload is handed on as slices of what was read, never
// copied or joined; other payloads are joined only when a read cut them. Nothing it hands on outlives
// the call: reads share their memory.

import { ConnectionError, ErrorCode, Flag, FRAME_HEADER_BYTES, FrameType } from "./protocol.ts";

export interface FrameHandler {
  /** A DATA frame begins; `length` is its whole payload, which flow control counts. */
  onDataStart(streamId: number, length: number, endStream: boolean): void;
  /**
   * A slice of that frame's payload, padding already removed, valid only during the call. `more`: the
   * frame has content that is still to come.
   */
  onData(slice: Buffer, more: boolean): void;
  onDataEnd(endStream: boolean): void;
  /** Any other frame, whole. `payload` is valid only during the call. */
  onFrame(type: number, flags: number, streamId: number, payload: Buffer): void;
}

const EMPTY = Buffer.alloc(0);

export class FrameParser {
  readonly #handler: FrameHandler;
  readonly #payloadBytesMax: number;
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  #headerFilled = 0;
  #type = 0;
  #flags = 0;
  #streamId = 0;
  /** Payload bytes of the current frame still to come, padding included. */
  #left = 0;
  /** Trailing padding of the current DATA frame; -1 while the pad length byte is awaited. */
  #padding = 0;
  /** Payload of a non-DATA frame that a read cut. */
  #partial: Buffer | undefined;
  #partialFilled = 0;

  constructor(handler: FrameHandler, payloadBytesMax: number) {
    this.#handler = handler;
    this.#payloadBytesMax = payloadBytesMax;
  }

  /** Feeds what was read. Throws ConnectionError on a malformed frame; the parser is then finished. */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#headerFilled < FRAME_HEADER_BYTES) {
        at = this.#readHeader(chunk, at);
        continue;
      }
      at = this.#type === FrameType.DATA ? this.#readData(chunk, at) : this.#readPayload(chunk, at);
    }
  }

  #readHeader(chunk: Buffer, at: number): number {
    let header: Buffer = this.#header;
    let offset = 0;
    let end: number;
    if (this.#headerFilled === 0 && chunk.length - at >= FRAME_HEADER_BYTES) {
      header = chunk;
      offset = at;
      end = at + FRAME_HEADER_BYTES;
    } else {
      const taken = Math.min(FRAME_HEADER_BYTES - this.#headerFilled, chunk.length - at);
      chunk.copy(header, this.#headerFilled, at, at + taken);
      this.#headerFilled += taken;
      end = at + taken;
      if (this.#headerFilled < FRAME_HEADER_BYTES) return end;
    }
    this.#headerFilled = FRAME_HEADER_BYTES;
    this.#begin(header, offset);
    return end;
  }

  #begin(header: Buffer, offset: number): void {
    this.#left = (header[offset]! << 16) | (header[offset + 1]! << 8) | header[offset + 2]!;
    this.#type = header[offset + 3]!;
    this.#flags = header[offset + 4]!;
    this.#streamId = header.readUInt32BE(offset + 5) & 0x7fffffff;
    if (this.#left > this.#payloadBytesMax) {
      throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, `frame of ${this.#left} bytes`);
    }
    if (this.#type === FrameType.DATA) this.#beginData();
    else if (this.#left === 0) this.#finishFrame(EMPTY);
  }

  #beginData(): void {
    this.#handler.onDataStart(this.#streamId, this.#left, this.#endsStream());
    this.#padding = this.#flags & Flag.PADDED ? -1 : 0;
    if (this.#padding === -1 && this.#left === 0) {
      throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "padded DATA without pad length");
    }
    if (this.#left === 0) this.#finishData();
  }

  #readData(chunk: Buffer, start: number): number {
    let at = start;
    if (this.#padding === -1) {
      this.#padding = chunk[at++]!;
      this.#left--;
      if (this.#padding > this.#left) {
        throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "padding exceeds the frame");
      }
    }
    const taken = Math.min(this.#left, chunk.length - at);
    const content = Math.min(this.#left - this.#padding, taken);
    const more = content < this.#left - this.#padding;
    if (content > 0) this.#handler.onData(chunk.subarray(at, at + content), more);
    this.#padding -= taken - Math.max(0, content);
    this.#left -= taken;
    if (this.#left === 0) this.#finishData();
    return at + taken;
  }

  #finishData(): void {
    this.#headerFilled = 0;
    this.#handler.onDataEnd(this.#endsStream());
  }

  #endsStream(): boolean {
    return (this.#flags & Flag.END_STREAM) !== 0;
  }

  #readPayload(chunk: Buffer, at: number): number {
    if (this.#partial === undefined && chunk.length - at >= this.#left) {
      const end = at + this.#left;
      this.#finishFrame(chunk.subarray(at, end));
      return end;
    }
    if (this.#partial === undefined) {
      this.#partial = Buffer.allocUnsafe(this.#left);
      this.#partialFilled = 0;
    }
    const partial = this.#partial;
    const taken = Math.min(partial.length - this.#partialFilled, chunk.length - at);
    chunk.copy(partial, this.#partialFilled, at, at + taken);
    this.#partialFilled += taken;
    if (this.#partialFilled === partial.length) {
      this.#partial = undefined;
      this.#finishFrame(partial);
    }
    return at + taken;
  }

  #finishFrame(payload: Buffer): void {
    this.#headerFilled = 0;
    this.#left = 0;
    this.#handler.onFrame(this.#type, this.#flags, this.#streamId, payload);
  }
}
