// Frames on their way into one socket: copied one behind the other into a scratch, written as one piece,
// so that what a turn of the event loop brought shares one system call and one TLS record. One write
// is under way at a time; what comes meanwhile waits for it and leaves together.

import type { Duplex } from "node:stream";
import { type DirectWriter, directWriter } from "../sys/write-directly.ts";
import { releaseScratch, takeScratch } from "../net/scratch.ts";

export class FrameOutput {
  readonly #socket: Duplex;
  readonly #writer: DirectWriter;
  readonly #onRoom: () => void;
  /** Written by nobody yet, in order: full scratches, then the one being filled. */
  #full: Buffer[] | undefined;
  #filling: Buffer | undefined;
  #filled = 0;
  /** Given to the socket, which holds on to it until the callback. */
  #inFlight: Buffer | undefined;
  #pressed = false;
  /** Called when the socket has ended. */
  #finished: (() => void) | undefined;

  /**
   * `onRoom` is called when all is written, if there was so much that `pressed` was true. Nobody else
   * may write to the socket.
   */
  constructor(socket: Duplex, onRoom: () => void) {
    this.#socket = socket;
    this.#writer = directWriter(socket);
    this.#onRoom = onRoom;
  }

  /** A write is under way: what is appended leaves when it is done. */
  get busy(): boolean {
    return this.#inFlight !== undefined;
  }

  get empty(): boolean {
    return this.#inFlight === undefined && this.#filling === undefined;
  }

  /** Bytes appended since the last write was started, up to one scratch. */
  get filledBytes(): number {
    return this.#filled;
  }

  /** A scratch is full and the socket has not taken the one before: stop until onRoom. */
  get pressed(): boolean {
    return this.#pressed;
  }

  /** It was told to finish: nothing may be appended any more. */
  get finished(): boolean {
    return this.#finished !== undefined;
  }

  /** Appends a copy; `bytes` may be reused at once. */
  append(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const room = this.room();
      const count = Math.min(room.length - this.#filled, bytes.length - at);
      room.set(count === bytes.length ? bytes : bytes.subarray(at, at + count), this.#filled);
      at += count;
      this.advance(count);
    }
  }

  /** The scratch to write into from `filledBytes` on, with at least a byte of room. */
  room(): Buffer {
    this.#filling ??= takeScratch();
    return this.#filling;
  }

  /** `count` bytes were put into `room()`. */
  advance(count: number): void {
    this.#filled += count;
    if (this.#filled < this.#filling!.length) return;
    this.flush();
    if (this.#filling === undefined) return;
    (this.#full ??= []).push(this.#filling);
    this.#filling = undefined;
    this.#filled = 0;
    this.#pressed = true;
  }

  /** Starts to write what was appended, unless a write is under way. */
  flush(): void {
    if (this.#inFlight !== undefined) return;
    const next = this.#full?.shift();
    const bytes = next ?? this.#filling;
    if (bytes === undefined) return;
    const length = next === undefined ? this.#filled : bytes.length;
    if (next === undefined) {
      this.#filling = undefined;
      this.#filled = 0;
    }
    this.#inFlight = bytes;
    this.#writer.write(bytes.subarray(0, length), this.#onWritten);
  }

  /** Writes everything, ends the socket, and calls `done` when that is through. */
  finish(done: () => void): void {
    if (this.#finished !== undefined) return;
    this.#finished = done;
    this.flush();
    this.#endWhenEmpty();
  }

  #endWhenEmpty(): void {
    if (this.#finished !== undefined && this.empty) this.#socket.end(this.#finished);
  }

  readonly #onWritten = (error?: Error): void => {
    if (this.#inFlight !== undefined) releaseScratch(this.#inFlight);
    this.#inFlight = undefined;
    if (error !== undefined) return this.#drop(error);
    this.flush();
    this.#endWhenEmpty();
    if (!this.#pressed || this.#full?.length) return;
    this.#pressed = false;
    this.#onRoom();
  };

  /** Nothing can be written any more. */
  #drop(error: Error): void {
    if (this.#filling !== undefined) releaseScratch(this.#filling);
    this.#filling = undefined;
    this.#full = undefined;
    this.#socket.destroy(error);
  }
}
