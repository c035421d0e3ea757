// Queues frames on a socket and decides when they leave: at the end of the tick when little waits
// (latency), at the end of the event-loop turn when much does (batching), at once past a bound.

import type { Duplex } from "node:stream";
import { Flag, FRAME_HEADER_BYTES, FrameType } from "./protocol.ts";

/** Above this many queued bytes a turn is worth waiting for: bulk, where batching pays. */
const BATCH_BYTES = 8 * 1024;
/** More active streams than this: their frames of one turn share a write. */
const BATCH_STREAMS = 4;
/** Never hold back more than this. */
const HOLD_BYTES_MAX = 256 * 1024;

export class FrameWriter {
  readonly #socket: Duplex;
  readonly #activeStreams: () => number;
  readonly #flush = () => this.#release();
  #corked = false;
  #deferred = false;
  #heldBytes = 0;
  #controlBytes = 0;

  constructor(socket: Duplex, activeStreams: () => number) {
    this.#socket = socket;
    this.#activeStreams = activeStreams;
  }

  /** Bytes of frames other than DATA that the kernel has not taken since all was last taken. */
  get queuedControlBytes(): number {
    return this.#socket.writableLength === 0 ? 0 : this.#controlBytes;
  }

  /** A frame without payload, or with one that may be reused by the caller (it is copied). */
  control(type: number, flags: number, streamId: number, payload?: Uint8Array): boolean {
    const length = payload?.length ?? 0;
    const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + length);
    writeHeader(frame, length, type, flags, streamId);
    if (payload !== undefined) frame.set(payload, FRAME_HEADER_BYTES);
    return this.#writeControl(frame);
  }

  /** A frame of four payload bytes: WINDOW_UPDATE, RST_STREAM. */
  control32(type: number, streamId: number, value: number): boolean {
    const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + 4);
    writeHeader(frame, 4, type, 0, streamId);
    frame.writeUInt32BE(value, FRAME_HEADER_BYTES);
    return this.#writeControl(frame);
  }

  /** A header block: HEADERS, and CONTINUATION as far as the peer's frame size asks for it. */
  headers(streamId: number, block: Buffer, endStream: boolean, frameBytesMax: number): void {
    const endFlag = endStream ? Flag.END_STREAM : 0;
    let type: number = FrameType.HEADERS;
    let at = 0;
    do {
      const part = block.subarray(at, at + frameBytesMax);
      at += part.length;
      const flags =
        (at === block.length ? Flag.END_HEADERS : 0) | (type === FrameType.HEADERS ? endFlag : 0);
      this.control(type, flags, streamId, part);
      type = FrameType.CONTINUATION;
    } while (at < block.length);
  }

  /** Streams of the peer up to `lastId` are still served (RFC 9113 §6.8). */
  goAway(lastId: number, code: number): void {
    const payload = Buffer.allocUnsafe(8);
    payload.writeUInt32BE(lastId, 0);
    payload.writeUInt32BE(code, 4);
    this.control(FrameType.GOAWAY, 0, 0, payload);
  }

  /** A DATA frame; the payload is written as it is, not copied. False: the socket wants a pause. */
  data(streamId: number, flags: number, payload: Buffer): boolean {
    const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
    writeHeader(header, payload.length, FrameType.DATA, flags, streamId);
    this.#write(header);
    return this.#write(payload);
  }

  raw(bytes: Buffer): boolean {
    return this.#write(bytes);
  }

  #writeControl(frame: Buffer): boolean {
    if (this.#socket.writableLength === 0) this.#controlBytes = 0;
    this.#controlBytes += frame.length;
    return this.#write(frame);
  }

  #write(bytes: Buffer): boolean {
    this.#heldBytes += bytes.length;
    if (!this.#corked) this.#hold();
    else if (!this.#deferred && this.#heldBytes > BATCH_BYTES) this.#defer();
    const open = this.#socket.write(bytes);
    if (this.#heldBytes > HOLD_BYTES_MAX) {
      this.#heldBytes = 0;
      this.#socket.uncork();
      this.#socket.cork();
    }
    return open;
  }

  #hold(): void {
    this.#corked = true;
    this.#socket.cork();
    if (this.#activeStreams() > BATCH_STREAMS || this.#heldBytes > BATCH_BYTES) this.#defer();
    else process.nextTick(this.#flush);
  }

  /** Moves the flush to the end of the turn; a tick flush already queued finds `deferred` set. */
  #defer(): void {
    this.#deferred = true;
    setImmediate(this.#releaseDeferred);
  }

  readonly #releaseDeferred = () => {
    this.#deferred = false;
    this.#release();
  };

  #release(): void {
    if (!this.#corked || this.#deferred) return;
    this.#corked = false;
    this.#heldBytes = 0;
    this.#socket.uncork();
  }
}

function writeHeader(
  target: Buffer,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): void {
  target[0] = length >> 16;
  target[1] = length >> 8;
  target[2] = length;
  target[3] = type;
  target[4] = flags;
  target.writeUInt32BE(streamId, 5);
}
