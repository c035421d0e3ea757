// Frames on their way into one socket: copied one behind the other into a scratch, written as one piece,
// so that what a turn of the event loop brought shares one system call and one TLS record. What comes
// while the kernel is full waits for it and leaves together.

import type { ByteSocket } from "../net/byte-socket.ts";
import { releaseScratch, takeScratch } from "../net/scratch.ts";

export class FrameOutput {
  readonly #socket: ByteSocket;
  readonly #onRoom: () => void;
  /** Written by nobody yet, in order: full scratches, then the one being filled. */
  #full: Buffer[] | undefined;
  #filling: Buffer | undefined;
  #filled = 0;
  /** The socket has not yet got rid of what it took. */
  #busy = false;
  #pressed = false;
  #finished = false;

  /**
   * `onRoom` is called when all is written, if there was so much that `pressed` was true. Nobody else
   * may write to the socket, and its `onWritable` must be told here.
   */
  constructor(socket: ByteSocket, onRoom: () => void) {
    this.#socket = socket;
    this.#onRoom = onRoom;
  }

  /** The socket is full: what is appended leaves when it is not any more. */
  get busy(): boolean {
    return this.#busy;
  }

  get empty(): boolean {
    return !this.#busy && this.#filling === undefined;
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
    return this.#finished;
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

  /** Writes bytes at once, without a copy; there must be none before them. */
  writeThrough(bytes: Buffer): void {
    this.#busy = !this.#socket.write(bytes);
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

  /** Writes what was appended, as long as the socket takes it. */
  flush(): void {
    while (!this.#busy) {
      const next = this.#full?.shift();
      const bytes = next ?? this.#filling;
      if (bytes === undefined) return;
      const length = next === undefined ? this.#filled : bytes.length;
      if (next === undefined) {
        this.#filling = undefined;
        this.#filled = 0;
      }
      this.#busy = !this.#socket.write(bytes.subarray(0, length));
      releaseScratch(bytes);
    }
  }

  /** Writes everything, then ends and closes the socket. */
  finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    this.flush();
    this.#endWhenEmpty();
  }

  onWritable(): void {
    this.#busy = false;
    this.flush();
    this.#endWhenEmpty();
    if (!this.#pressed || this.#full?.length) return;
    this.#pressed = false;
    this.#onRoom();
  }

  #endWhenEmpty(): void {
    if (this.#finished && this.empty) this.#socket.endAndClose();
  }
}
