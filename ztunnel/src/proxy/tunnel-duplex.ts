// A tunnel stream as a Node stream, so that TLS can run inside a tunnel: one end is the socket that a
// relay reads and writes, the other the Duplex that TLS uses. Holds at most one chunk each way beyond
// what the Duplex buffers.

import { Duplex } from "node:stream";
import type { ByteSocket, ByteSocketHandler } from "@ambit/common/net/byte-socket.ts";

export class TunnelDuplex extends Duplex {
  /** What the relay of the tunnel stream is given. */
  readonly socket: ByteSocket;
  readonly #near: NearEnd;

  constructor() {
    super({ allowHalfOpen: true });
    this.#near = new NearEnd(this);
    this.socket = this.#near;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#near.fromTls(chunk, done);
  }

  override _final(done: () => void): void {
    this.#near.fromTls(undefined, done);
  }

  override _read(): void {
    this.#near.wanted();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#near.closed(error ?? undefined);
    done(error);
  }
}

/** A chunk, or the end, that TLS wrote while the relay had paused us. */
interface Held {
  readonly chunk: Buffer | undefined;
  readonly done: () => void;
}

class NearEnd implements ByteSocket {
  handler: ByteSocketHandler | undefined;
  readonly remote = undefined;
  readonly local = undefined;
  readonly #duplex: Duplex;
  #paused = true;
  #held: Held | undefined;
  #full = false;

  constructor(duplex: Duplex) {
    this.#duplex = duplex;
  }

  get destroyed(): boolean {
    return this.#duplex.destroyed;
  }

  get fd(): number {
    throw new Error("a tunnel has no descriptor");
  }

  resume(): void {
    this.#paused = false;
    const held = this.#held;
    this.#held = undefined;
    if (held !== undefined) this.#deliver(held);
  }

  pause(): void {
    this.#paused = true;
  }

  write(bytes: Buffer): boolean {
    if (this.destroyed) return true;
    this.#full = !this.#duplex.push(Buffer.from(bytes));
    return !this.#full;
  }

  end(): void {
    if (!this.destroyed) this.#duplex.push(null);
  }

  endAndClose(): void {
    this.end();
    this.closed();
  }

  destroy(): void {
    this.#duplex.destroy();
  }

  reset(): void {
    this.#duplex.destroy();
  }

  /** TLS wrote a chunk, or with undefined its end. */
  fromTls(chunk: Buffer | undefined, done: () => void): void {
    if (this.#paused) this.#held = { chunk, done };
    else this.#deliver({ chunk, done });
  }

  /** TLS can read again. */
  wanted(): void {
    if (!this.#full) return;
    this.#full = false;
    this.handler?.onWritable();
  }

  /** Tells the relay once. */
  closed(error?: Error): void {
    const { handler } = this;
    this.handler = undefined;
    handler?.onClose(error);
  }

  #deliver({ chunk, done }: Held): void {
    if (chunk === undefined) this.handler?.onEnd();
    else this.handler?.onBytes(chunk);
    done();
  }
}
