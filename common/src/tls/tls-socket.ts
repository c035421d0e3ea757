// TLS over any ByteSocket, itself one. Owns its session, and the socket below from the start on.

import type { X509Certificate } from "node:crypto";
import type { ByteSocket, ByteSocketHandler } from "../net/byte-socket.ts";
import type { SocketAddress } from "../net/socket-address.ts";
import type { TlsContext } from "./tls-context.ts";
import { TlsError, TlsSession } from "./tls-session.ts";

/** A handshake that did not end well, for people. */
export class HandshakeError extends Error {
  override readonly name = "HandshakeError";
}

type Settle = (error?: HandshakeError) => void;

export class TlsSocket implements ByteSocket, ByteSocketHandler {
  handler: ByteSocketHandler | undefined;
  readonly #below: ByteSocket;
  readonly #session: TlsSession;
  /** While the handshake lasts. */
  #settle: Settle | undefined;
  /** Plain bytes that came with the end of the handshake, until somebody reads. */
  #early: Buffer | undefined;
  #readEnded = false;
  #endSent = false;
  #failure: Error | undefined;
  #closed = false;

  /** `below` is connected and nobody else reads or writes it. */
  constructor(below: ByteSocket, context: TlsContext, role: "client" | "server") {
    this.#below = below;
    this.#session = new TlsSession(context, role);
    below.handler = this;
  }

  /**
   * Makes the handshake. Resolves when both sides have agreed and the peer's chain ends at one of our
   * roots; then nothing is read until `resume`. Rejects with a HandshakeError, and closes.
   */
  secure(): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle: Settle = (error) => (error === undefined ? resolve() : reject(error));
      this.#settle = settle;
      // It may have been closed while nobody listened.
      if (this.#below.destroyed) return queueMicrotask(() => this.onClose());
      this.#below.resume();
      this.#step(undefined);
    });
  }

  get destroyed(): boolean {
    return this.#below.destroyed;
  }

  get remote(): SocketAddress | undefined {
    return this.#below.remote;
  }

  get local(): SocketAddress | undefined {
    return this.#below.local;
  }

  get fd(): number {
    return this.#below.fd;
  }

  /** What was agreed on. Only between the handshake and the socket's end. */
  get session(): Pick<TlsSession, "protocol" | "group" | "speaksH2"> {
    return this.#session;
  }

  /** The peer's own certificate first, then what else it presented. As `session`. */
  peerCertificates(): X509Certificate[] {
    return this.#session.peerCertificates();
  }

  resume(): void {
    if (this.#early === undefined) this.#below.resume();
    else queueMicrotask(this.#deliverEarly);
  }

  /** What is decrypted already still comes: at most what one read brought. */
  pause(): void {
    this.#below.pause();
  }

  write(bytes: Buffer, more = false): boolean {
    if (this.destroyed || this.#endSent) return true;
    try {
      if (bytes.length <= TlsSession.pieceBytes) return this.#writePiece(bytes, more);
      let open = true;
      for (let at = 0; at < bytes.length; at += TlsSession.pieceBytes) {
        open = this.#writePiece(bytes.subarray(at, at + TlsSession.pieceBytes), more);
      }
      return open;
    } catch (error) {
      this.#fail(error);
      return true;
    }
  }

  end(): void {
    this.#sayGoodbye();
    this.#below.end();
  }

  endAndClose(): void {
    this.#sayGoodbye();
    this.#below.endAndClose();
  }

  destroy(): void {
    this.#below.destroy();
  }

  reset(): void {
    this.#below.reset();
  }

  // What the socket below tells.

  onBytes(bytes: Buffer): void {
    if (this.#settle !== undefined) return this.#step(bytes);
    if (this.#readEnded || this.destroyed) return;
    try {
      const plain = this.#decrypt(bytes);
      if (plain.length > 0) this.handler?.onBytes(plain);
    } catch (error) {
      this.#fail(error);
    }
    if (this.#session.ended) this.#endReading();
  }

  onEnd(): void {
    if (this.#settle === undefined) return this.#endReading();
    this.#refuse("the peer closed during the TLS handshake");
    this.#below.destroy();
  }

  onWritable(): void {
    this.handler?.onWritable();
  }

  onClose(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#session.free();
    this.#failure ??= error;
    this.#refuse(this.#failure?.message ?? "the peer closed during the TLS handshake");
    this.handler?.onClose(this.#failure);
  }

  #step(bytes: Buffer | undefined): void {
    try {
      const over = this.#session.handshake(bytes);
      this.#send(this.#session.takeCipher());
      if (over) this.#secured();
    } catch (error) {
      this.#fail(error);
    }
  }

  #secured(): void {
    const plain = this.#decrypt();
    this.#readEnded = this.#session.ended;
    if (plain.length > 0 || this.#readEnded) this.#early = Buffer.from(plain);
    this.#below.pause();
    const settle = this.#settle;
    this.#settle = undefined;
    settle?.();
  }

  #decrypt(bytes?: Buffer): Buffer {
    const session = this.#session;
    const plain = session.decrypt(bytes);
    if (session.answers) this.#send(session.takeCipher());
    return plain;
  }

  readonly #deliverEarly = (): void => {
    const early = this.#early;
    this.#early = undefined;
    if (early === undefined || this.destroyed) return;
    this.#below.resume();
    if (early.length > 0) this.handler?.onBytes(early);
    if (this.#readEnded) this.handler?.onEnd();
  };

  #endReading(): void {
    if (this.#readEnded) return;
    this.#readEnded = true;
    this.handler?.onEnd();
  }

  #send(cipher: Buffer): void {
    if (cipher.length > 0) this.#below.write(cipher);
  }

  #writePiece(piece: Buffer, more: boolean): boolean {
    return this.#below.write(this.#session.encrypt(piece), more);
  }

  #sayGoodbye(): void {
    if (this.#endSent || this.destroyed) return;
    this.#endSent = true;
    if (this.#settle === undefined) this.#send(this.#session.shutdown());
  }

  /** Tells the peer what OpenSSL has to say of it, and closes. What is not TLS's is not ours to catch. */
  #fail(error: unknown): void {
    if (!(error instanceof TlsError)) throw error;
    this.#failure ??= error;
    this.#send(error.alert);
    this.#below.endAndClose();
    this.#refuse(`TLS handshake failed: ${error.message}`);
  }

  /** The handshake, if it still lasts, has failed. */
  #refuse(reason: string): void {
    const settle = this.#settle;
    this.#settle = undefined;
    settle?.(new HandshakeError(reason));
  }
}
