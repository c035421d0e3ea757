// A ByteSocket straight on Node's TCP handle: no stream objects, no allocation per read, one copy and
// one system call per write. Owns its handle and at most the scratch its pending bytes wait in.

import { getSystemErrorMessage, getSystemErrorName } from "node:util";
import type { ByteSocket, ByteSocketHandler } from "../net/byte-socket.ts";
import { readBuffer, releaseScratch, takeScratch } from "../net/scratch.ts";
import type { SocketAddress } from "../net/socket-address.ts";
import { SystemError } from "./libc.ts";
import {
  type NodeHandles,
  nodeHandles,
  type StreamHandle,
  type StreamRequest,
  type TcpHandle,
  UV_EOF,
} from "./node-handles.ts";
import { nameOf } from "./sockets.ts";

const EBADF = 9;

type OwnedHandle = TcpHandle & { owner?: HandleSocket };

export class HandleSocket implements ByteSocket {
  handler: ByteSocketHandler | undefined;
  readonly #node: NodeHandles;
  readonly #handle: OwnedHandle;
  #reading = false;
  #readEnded = false;
  #endWanted = false;
  #closeWanted = false;
  #shutDown = false;
  #closed = false;
  #error: Error | undefined;
  /** Bytes not yet given to the kernel, in order: full scratches, then the one being filled. */
  #full: Buffer[] | undefined;
  #filling: Buffer | undefined;
  #filled = 0;
  /** What the kernel is still to take of. */
  #inFlight: Buffer | undefined;
  #held = false;

  /** `handle` is connected, and nobody else uses it. Only where `nodeHandles` is there. */
  constructor(handle: TcpHandle) {
    this.#node = nodeHandles!;
    this.#handle = handle;
    this.#handle.owner = this;
    handle.onread = onRead;
    handle.useUserBuffer(readBuffer);
  }

  get destroyed(): boolean {
    return this.#closed;
  }

  get remote(): SocketAddress | undefined {
    return this.#closed ? undefined : nameOf(this.#handle.fd, "peer");
  }

  get local(): SocketAddress | undefined {
    return this.#closed ? undefined : nameOf(this.#handle.fd, "local");
  }

  get fd(): number {
    if (this.#closed) throw new SystemError("HandleSocket", EBADF, "socket is closed");
    return this.#handle.fd;
  }

  resume(): void {
    if (this.#reading || this.#readEnded || this.#closed) return;
    this.#reading = true;
    this.#handle.readStart();
  }

  pause(): void {
    if (!this.#reading) return;
    this.#reading = false;
    this.#handle.readStop();
  }

  write(bytes: Buffer, more = false): boolean {
    if (this.#closed || this.#endWanted) return true;
    for (let at = 0; at < bytes.length;) at += this.#fill(bytes, at);
    if (this.#inFlight !== undefined) return false;
    if (!more) return this.#flush();
    this.#hold();
    return true;
  }

  end(): void {
    if (this.#endWanted || this.#closed) return;
    this.#endWanted = true;
    if (this.#flush()) this.#finish();
  }

  endAndClose(): void {
    this.#closeWanted = true;
    if (this.#endWanted && this.#shutDown) this.destroy();
    else this.end();
  }

  destroy(error?: Error): void {
    if (!this.#abandon(error)) return;
    this.#handle.close();
    if (closed.length === 0) queueMicrotask(tellClosed);
    closed.push(this);
  }

  /** Whoever closed it has returned. */
  tellClosed(): void {
    this.handler?.onClose(this.#error);
  }

  /** While FIN is being sent, libuv cannot reset, and Node would lose the handle: then it is closed. */
  reset(): void {
    const ending = this.#endWanted && !this.#shutDown;
    if (ending) return this.destroy();
    if (this.#abandon(undefined)) this.#handle.reset(() => this.handler?.onClose(this.#error));
  }

  /** False when it was closed before. */
  #abandon(error: Error | undefined): boolean {
    if (this.#closed) return false;
    this.#closed = true;
    this.#reading = false;
    this.#error = error;
    if (this.#filling !== undefined) releaseScratch(this.#filling);
    this.#filling = undefined;
    this.#full = undefined;
    return true;
  }

  /** Copies into the scratch what fits of `bytes` from `at`; returns how many bytes that were. */
  #fill(bytes: Buffer, at: number): number {
    const filling = (this.#filling ??= takeScratch());
    const count = Math.min(filling.length - this.#filled, bytes.length - at);
    bytes.copy(filling, this.#filled, at, at + count);
    this.#filled += count;
    if (this.#filled === filling.length && !this.#flush()) {
      (this.#full ??= []).push(filling);
      this.#filling = undefined;
      this.#filled = 0;
    }
    return count;
  }

  #hold(): void {
    if (this.#held || this.#filling === undefined) return;
    this.#held = true;
    if (held.length === 0) setImmediate(flushHeld);
    held.push(this);
  }

  /** The turn is over: what waited for more goes. */
  releaseHeld(): void {
    this.#held = false;
    if (!this.#closed) this.#flush();
  }

  /** Hands over what waits. True when nothing is left waiting. */
  #flush(): boolean {
    while (this.#inFlight === undefined && !this.#closed) {
      const next = this.#full?.shift();
      const bytes = next ?? this.#filling;
      if (bytes === undefined) return true;
      const length = next === undefined ? this.#filled : bytes.length;
      if (next === undefined) {
        this.#filling = undefined;
        this.#filled = 0;
      }
      this.#send(bytes, length);
    }
    return this.#closed;
  }

  #send(bytes: Buffer, length: number): void {
    const request = spareRequest ?? this.#node.newRequest("write");
    spareRequest = undefined;
    request.oncomplete = onWritten;
    request.handle = this.#handle;
    request.owner = this;
    const status = this.#handle.writeBuffer(request, bytes.subarray(0, length));
    if (status === 0 && this.#node.writeWaits()) {
      this.#inFlight = bytes;
      return;
    }
    request.owner = undefined;
    spareRequest = request;
    releaseScratch(bytes);
    if (status < 0) this.destroy(errnoError("write", status));
  }

  onWritten(status: number): void {
    if (this.#inFlight !== undefined) releaseScratch(this.#inFlight);
    this.#inFlight = undefined;
    if (this.#closed) return;
    if (status < 0) this.destroy(errnoError("write", status));
    else if (!this.#flush()) return;
    else if (this.#endWanted) this.#finish();
    else this.handler?.onWritable();
  }

  /** Everything is handed over: FIN. Closing says the same when the peer has finished already. */
  #finish(): void {
    if (this.#closed) return;
    if (this.#readEnded) return this.destroy();
    const request = this.#node.newRequest("shutdown");
    request.oncomplete = onShutDown;
    request.handle = this.#handle;
    request.owner = this;
    const status = this.#handle.shutdown(request);
    if (status < 0) this.destroy(errnoError("shutdown", status));
  }

  onShutDown(): void {
    this.#shutDown = true;
    if (this.#readEnded || this.#closeWanted) this.destroy();
  }

  onRead(result: number): void {
    if (result > 0) this.handler?.onBytes(readBuffer.subarray(0, result));
    else if (result < 0) this.#onReadEnd(result);
  }

  #onReadEnd(result: number): void {
    if (this.#closed) return;
    this.#reading = false;
    if (result !== UV_EOF) return this.destroy(errnoError("read", result));
    this.#readEnded = true;
    this.handler?.onEnd();
    if (this.#shutDown) this.destroy();
  }
}

/** A write request that completed at once serves the next write: most do. */
let spareRequest: StreamRequest | undefined;

/** Sockets whose bytes wait for the end of the turn. */
let held: HandleSocket[] = [];

function flushHeld(): void {
  const sockets = held;
  held = [];
  for (const socket of sockets) socket.releaseHeld();
}

/** Sockets whose handlers are still to hear of it. */
let closed: HandleSocket[] = [];

function tellClosed(): void {
  const sockets = closed;
  closed = [];
  for (const socket of sockets) socket.tellClosed();
}

function onRead(this: StreamHandle): void {
  (this as OwnedHandle).owner!.onRead(nodeHandles!.readResult());
}

function onWritten(this: StreamRequest, status: number): void {
  (this.owner as HandleSocket).onWritten(status);
}

function onShutDown(this: StreamRequest): void {
  (this.owner as HandleSocket).onShutDown();
}

/** Shaped like Node's own: `code` is errno's name. */
export function errnoError(syscall: string, status: number): Error {
  const code = getSystemErrorName(status);
  const message = `${syscall} ${code}: ${getSystemErrorMessage(status)}`;
  return Object.assign(new Error(message), { code, syscall, errno: status });
}
