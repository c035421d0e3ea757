// Two ByteSockets in memory: what is written to one comes out of the other, in a later microtask and as a
// copy, so that protocols can be stacked without one working in the other's call. Holds what was written
// since, as much as its writer wrote after `write` said that there was no more room.

import type { ByteSocket, ByteSocketHandler } from "./byte-socket.ts";

/** Bytes that wait at an end before its writer is told to wait, too. */
const ROOM_BYTES = 256 * 1024;

/** Both ends start paused, as sockets do. */
export function bytePair(): [ByteSocket, ByteSocket] {
  const [a, b] = [new PairEnd(), new PairEnd()];
  a.peer = b;
  b.peer = a;
  return [a, b];
}

class PairEnd implements ByteSocket {
  handler: ByteSocketHandler | undefined;
  readonly remote = undefined;
  readonly local = undefined;
  peer!: PairEnd;
  destroyed = false;
  /** What the peer wrote and nobody has read. */
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #paused = true;
  /** The peer has ended, and our handler has been told. */
  #peerEnded = false;
  #endTold = false;
  #ended = false;
  #closeWanted = false;
  #scheduled = false;
  #writerWaits = false;

  get fd(): number {
    throw new Error("a pair in memory has no descriptor");
  }

  resume(): void {
    this.#paused = false;
    this.#schedule();
  }

  pause(): void {
    this.#paused = true;
  }

  write(bytes: Buffer): boolean {
    if (this.destroyed || this.#ended) return true;
    return this.peer.#take(bytes);
  }

  end(): void {
    if (this.#ended || this.destroyed) return;
    this.#ended = true;
    this.peer.#peerEnded = true;
    this.peer.#schedule();
  }

  endAndClose(): void {
    this.end();
    this.#closeWanted = true;
    if (this.peer.#endTold) this.destroy();
  }

  /** Closes both ends: there is nothing between them to outlive one. */
  destroy(): void {
    this.#close();
    this.peer.#close();
  }

  reset(): void {
    this.destroy();
  }

  #take(bytes: Buffer): boolean {
    this.#waiting.push(Buffer.from(bytes));
    this.#waitingBytes += bytes.length;
    this.#schedule();
    this.#writerWaits = this.#waitingBytes >= ROOM_BYTES;
    return !this.#writerWaits;
  }

  #schedule(): void {
    if (this.#scheduled || this.#paused || this.destroyed) return;
    this.#scheduled = true;
    queueMicrotask(this.#deliver);
  }

  readonly #deliver = (): void => {
    this.#scheduled = false;
    while (!this.#paused && !this.destroyed) {
      const bytes = this.#waiting.shift();
      if (bytes === undefined) break;
      this.#waitingBytes -= bytes.length;
      this.handler?.onBytes(bytes);
    }
    if (this.destroyed || this.#waiting.length > 0) return;
    if (this.#writerWaits) {
      this.#writerWaits = false;
      this.peer.handler?.onWritable();
    }
    if (this.#peerEnded && !this.#paused) this.#tellEnd();
  };

  #tellEnd(): void {
    if (this.#endTold) return;
    this.#endTold = true;
    this.handler?.onEnd();
    if (this.peer.#closeWanted || this.peer.#endTold) this.destroy();
  }

  #close(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.#waiting = [];
    queueMicrotask(() => this.handler?.onClose());
  }
}
