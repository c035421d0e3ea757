// One HTTP/2 stream: its state (RFC 9113 §5.1), its two windows, and the one chunk that waits for the
// peer's window. Bytes go out through the connection and come in to the listener; no Node streams.

import type { HeaderField } from "./hpack-table.ts";
import type { Http2Connection } from "./connection.ts";

/** What happens on a stream. What onData gets is credited with `stream.consumed(n)`. */
export interface StreamListener {
  onHeaders(fields: readonly HeaderField[], endStream: boolean): void;
  /** `slice` is valid only during the call; with `more` the rest of its frame is still to come. */
  onData(slice: Buffer, more: boolean): void;
  /** The peer has finished sending. */
  onEnd(): void;
  /**
   * The stream is over: reset by the peer, or the connection ended for the reason `lost`. No callback
   * follows.
   */
  onAbort(code: number, lost?: string): void;
  /** `write` may be called again after it returned false. */
  onWritable(): void;
}

export class Http2Stream {
  readonly id: number;
  readonly #connection: Http2Connection;
  listener: StreamListener | undefined;
  /** Bytes the peer still lets us send. May be negative after a SETTINGS change (§6.9.2). */
  sendWindowBytes: number;
  /** Bytes the peer may still send before we grant more. */
  receiveWindowBytes: number;
  #uncreditedBytes = 0;
  /** Body bytes that content-length promised and that are still to come; undefined: no promise. */
  #promisedBytes: number | undefined;
  #waiting: Buffer | undefined;
  #endWaiting = false;
  #blocked = false;
  /** Ours are out: a request of ours, or the answer to the peer's. */
  headersSent = false;
  localEnded = false;
  remoteEnded = false;
  closed = false;

  constructor(
    connection: Http2Connection,
    id: number,
    sendWindowBytes: number,
    receiveWindowBytes: number,
  ) {
    this.#connection = connection;
    this.id = id;
    this.sendWindowBytes = sendWindowBytes;
    this.receiveWindowBytes = receiveWindowBytes;
  }

  get connection(): Http2Connection {
    return this.#connection;
  }

  sendHeaders(fields: readonly HeaderField[], endStream = false): void {
    if (this.closed) return;
    this.headersSent = true;
    this.#connection.writeHeaders(this, fields, endStream);
    if (endStream) this.#endedLocally();
  }

  /**
   * Sends bytes, as far as the windows allow; a copy of the rest of this one chunk is kept. False: stop
   * until onWritable, either for the windows or because the socket is full.
   */
  write(chunk: Buffer): boolean {
    if (this.closed || this.localEnded) return true;
    if (this.#waiting !== undefined) {
      this.#waiting = Buffer.concat([this.#waiting, chunk]);
      return false;
    }
    return this.#send(chunk);
  }

  /** Finishes our direction, after what waits has been sent. */
  end(): void {
    if (this.closed || this.localEnded || this.#endWaiting) return;
    if (this.#waiting !== undefined) {
      this.#endWaiting = true;
      return;
    }
    this.#connection.writeEnd(this);
    this.#endedLocally();
  }

  /** RST_STREAM, and forgets the stream. No callback follows. */
  reset(code: number): void {
    if (this.closed) return;
    this.#connection.resetStream(this, code);
  }

  /** The head promised a body of so many bytes: any other number is an error (RFC 9113 §8.1.1). */
  promiseBody(bytes: number): void {
    this.#promisedBytes = bytes;
  }

  /** Counts body bytes that came; false when there are more than promised. */
  countBody(bytes: number): boolean {
    if (this.#promisedBytes === undefined) return true;
    this.#promisedBytes -= bytes;
    return this.#promisedBytes >= 0;
  }

  /** The body would end short of its promise. */
  get bodyMissing(): boolean {
    return this.#promisedBytes !== undefined && this.#promisedBytes > 0;
  }

  /** The listener is done with `bytes` of what it got: the peer may send as many again. */
  consumed(bytes: number): void {
    this.#uncreditedBytes += bytes;
    this.#connection.credit(bytes);
    if (this.closed || this.remoteEnded) return;
    if (this.#uncreditedBytes * 2 < this.#connection.streamWindowBytes) return;
    this.receiveWindowBytes += this.#uncreditedBytes;
    this.#connection.writeWindowUpdate(this.id, this.#uncreditedBytes);
    this.#uncreditedBytes = 0;
  }

  /** True when the stream holds bytes or its user was told to stop. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** The windows or the socket have room again. Called by the connection. */
  resume(): void {
    if (!this.#blocked || this.closed) return;
    const chunk = this.#waiting;
    this.#waiting = undefined;
    if (chunk !== undefined && !this.#send(chunk)) return;
    this.#blocked = false;
    if (this.#endWaiting) {
      this.#endWaiting = false;
      this.end();
      return;
    }
    this.listener?.onWritable();
  }

  #send(chunk: Buffer): boolean {
    let at = 0;
    let open = true;
    while (at < chunk.length) {
      const allowed = Math.min(
        this.sendWindowBytes,
        this.#connection.sendWindowBytes,
        this.#connection.frameBytesMax,
      );
      if (allowed <= 0) {
        this.#waiting = Buffer.from(chunk.subarray(at));
        this.#blocked = true;
        return false;
      }
      const length = Math.min(allowed, chunk.length - at);
      open = this.#connection.writeData(
        this,
        length === chunk.length ? chunk : chunk.subarray(at, at + length),
      );
      at += length;
    }
    if (!open) this.#blocked = true;
    return open;
  }

  #endedLocally(): void {
    this.localEnded = true;
    if (this.remoteEnded) this.#connection.forget(this);
  }
}
