// Writes frames, and decides when they leave: at the end of the tick when little waits (latency), at
// the end of the event-loop turn when much does or many streams are active (batching).

import type { ByteSocket } from "../net/byte-socket.ts";
import { Prefixes } from "../net/prefixes.ts";
import { isAsRead, readBuffer } from "../net/scratch.ts";
import { atTurnEnd } from "../process/turn-end.ts";
import { FrameOutput } from "./frame-output.ts";
import { Flag, FRAME_HEADER_BYTES, FrameType } from "./protocol.ts";

/** Above this many bytes a turn is worth waiting for: bulk, where batching pays. */
const BATCH_BYTES = 8 * 1024;
/** More active streams than this: their frames of one turn share a write. */
const BATCH_STREAMS = 4;

/** From this many bytes on a frame's payload is not copied behind its header; the header is written before it. */
const IN_PLACE_BYTES = 16 * 1024;

/** What was read last, with a header before it. */
const framed = Buffer.from(
  readBuffer.buffer,
  readBuffer.byteOffset - FRAME_HEADER_BYTES,
  FRAME_HEADER_BYTES + readBuffer.length,
);
const framedViews = new Prefixes(framed);

export class FrameWriter {
  readonly #output: FrameOutput;
  readonly #activeStreams: () => number;
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  readonly #number = Buffer.alloc(4);
  #scheduled: "none" | "tick" | "turn" = "none";
  #controlBytes = 0;

  /** `onRoom`: after `data` returned false, there is room again. */
  constructor(socket: ByteSocket, activeStreams: () => number, onRoom: () => void) {
    this.#output = new FrameOutput(socket, onRoom);
    this.#activeStreams = activeStreams;
  }

  /** Bytes of frames other than DATA that wait since everything was last written. */
  get queuedControlBytes(): number {
    return this.#output.empty ? 0 : this.#controlBytes;
  }

  /** A frame with a payload that may be reused by the caller. */
  control(type: number, flags: number, streamId: number, payload?: Uint8Array): void {
    if (this.#output.finished) return;
    const length = payload?.length ?? 0;
    this.#countControl(FRAME_HEADER_BYTES + length);
    this.#appendHeader(length, type, flags, streamId);
    if (payload !== undefined) this.#output.append(payload);
    this.#schedule();
  }

  /** A frame of four payload bytes: WINDOW_UPDATE, RST_STREAM. */
  control32(type: number, streamId: number, value: number): void {
    this.#number.writeUInt32BE(value);
    this.control(type, 0, streamId, this.#number);
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

  /** A DATA frame; `payload` may be reused by the caller. False: stop until onRoom. */
  data(streamId: number, payload: Buffer): boolean {
    if (this.#output.finished) return true;
    if (payload.length >= IN_PLACE_BYTES && isAsRead(payload) && this.#output.empty) {
      writeHeader(framed, 0, payload.length, FrameType.DATA, 0, streamId);
      this.#output.writeThrough(framedViews.of(FRAME_HEADER_BYTES + payload.length));
      return true;
    }
    this.#appendHeader(payload.length, FrameType.DATA, 0, streamId);
    this.#output.append(payload);
    this.#schedule();
    return !this.#output.pressed;
  }

  raw(bytes: Buffer): void {
    this.#output.append(bytes);
    this.#schedule();
  }

  /** Writes what waits, then ends and closes the socket. */
  finish(): void {
    this.#output.finish();
  }

  /** To be told when the socket can be written again. */
  onWritable(): void {
    this.#output.onWritable();
  }

  #countControl(bytes: number): void {
    if (this.#output.empty) this.#controlBytes = 0;
    this.#controlBytes += bytes;
  }

  /** In place when the scratch has room for it, which it nearly always has. */
  #appendHeader(length: number, type: number, flags: number, streamId: number): void {
    const room = this.#output.room();
    const at = this.#output.filledBytes;
    if (room.length - at < FRAME_HEADER_BYTES) {
      writeHeader(this.#header, 0, length, type, flags, streamId);
      this.#output.append(this.#header);
    } else {
      writeHeader(room, at, length, type, flags, streamId);
      this.#output.advance(FRAME_HEADER_BYTES);
    }
  }

  /** A write under way flushes what waits when it is done: nothing to schedule. */
  #schedule(): void {
    if (this.#scheduled === "turn" || this.#output.busy) return;
    if (this.#activeStreams() > BATCH_STREAMS || this.#output.filledBytes > BATCH_BYTES) {
      this.#scheduled = "turn";
      atTurnEnd(this.#onTurn);
    } else if (this.#scheduled === "none") {
      this.#scheduled = "tick";
      process.nextTick(this.#onTick);
    }
  }

  readonly #onTick = (): void => {
    if (this.#scheduled !== "tick") return;
    this.#scheduled = "none";
    this.#output.flush();
  };

  readonly #onTurn = (): void => {
    this.#scheduled = "none";
    this.#output.flush();
  };
}

function writeHeader(
  target: Buffer,
  at: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): void {
  target[at] = length >> 16;
  target[at + 1] = length >> 8;
  target[at + 2] = length;
  target[at + 3] = type;
  target[at + 4] = flags;
  target.writeUInt32BE(streamId, at + 5);
}
