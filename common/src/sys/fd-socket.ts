// A ByteSocket on a bare descriptor: no stream, no handle of Node's; reads and writes are system calls,
// made as soon as they can succeed. What cannot be written yet is copied and waits here.

import { getSystemErrorMessage, getSystemErrorName } from "node:util";
import type { ByteSocket, ByteSocketHandler } from "../net/byte-socket.ts";
import { Prefixes } from "../net/prefixes.ts";
import { readBuffer, releaseScratch, takeScratch } from "../net/scratch.ts";
import type { SocketAddress } from "../net/socket-address.ts";
import { throwLater } from "../process/throw-later.ts";
import { atTurnEnd } from "../process/turn-end.ts";
import { close, recvAt, send, shutdown } from "./byte-calls.ts";
import { EAGAIN, EBADF } from "./constants.ts";
import {
  EPOLLERR,
  EPOLLET,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  EPOLLPRI,
  EPOLLRDHUP,
  type FdLoop,
  fdLoop,
  type FdTarget,
} from "./fd-loop.ts";
import { addressOf, lastErrno, SystemError } from "./libc.ts";
import { nameOf, resetOnClose } from "./sockets.ts";

/**
 * What a socket that is read is watched for. Writability is left out until the kernel is full for the
 * first time: it would be an event at once for each socket.
 */
const READ_EVENTS = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET;
/** And all there is to know of a socket. */
export const SOCKET_EVENTS = READ_EVENTS | EPOLLOUT;

/** A read that does not fill the buffer has emptied the socket, unless the kernel told of one of these. */
const READ_ON = EPOLLPRI | EPOLLRDHUP | EPOLLERR | EPOLLHUP;
const TO_READ = EPOLLIN | READ_ON;
const TO_WRITE = EPOLLOUT | EPOLLERR | EPOLLHUP;

/** Full buffers from one socket before the others get their turn. */
export const READS_PER_TURN = 4;

const MSG_NOSIGNAL = 0x4000;
const SHUT_WR = 1;
const NO_SLOT = -1;

const READ_ADDRESS = Number(addressOf(readBuffer));
const READ_BYTES = readBuffer.length;
const readViews = new Prefixes(readBuffer);

export class FdSocket implements ByteSocket, FdTarget {
  handler: ByteSocketHandler | undefined;
  readonly #loop: FdLoop;
  /** -1: closed. */
  #fd: number;
  #slot: number;
  #watchesWrites: boolean;
  #resumed = false;
  /** As far as we know there is something to read; while paused it stays so. */
  #readable = false;
  #readOn = false;
  /** The loop will call us without an event. */
  #asked = false;
  #readEnded = false;
  /** The kernel did not take everything: it tells when it takes more. */
  #blocked = false;
  #held = false;
  #endWanted = false;
  #closeWanted = false;
  #shutDown = false;
  #error: Error | undefined;
  /** Bytes that wait, in order: full scratches, then the one being filled. */
  #full: Buffer[] | undefined;
  #filling: Buffer | undefined;
  #filled = 0;
  /** What the kernel has taken of the first of them. */
  #sent = 0;

  /**
   * Takes over a connected descriptor that does not block. `slot` is its slot in the loop, if it is
   * watched there already for all there is.
   */
  constructor(fd: number, loop = fdLoop(), slot = NO_SLOT) {
    this.#fd = fd;
    this.#loop = loop;
    this.#slot = slot;
    this.#watchesWrites = slot !== NO_SLOT;
    if (slot !== NO_SLOT) loop.replace(slot, this);
  }

  get destroyed(): boolean {
    return this.#fd < 0;
  }

  get remote(): SocketAddress | undefined {
    return this.#fd < 0 ? undefined : nameOf(this.#fd, "peer");
  }

  get local(): SocketAddress | undefined {
    return this.#fd < 0 ? undefined : nameOf(this.#fd, "local");
  }

  get fd(): number {
    if (this.#fd < 0) throw new SystemError("FdSocket", EBADF, "socket is closed");
    return this.#fd;
  }

  /** Being watched from the first time on, the kernel tells at once of what waits already. */
  resume(): void {
    if (this.#resumed || this.#readEnded || this.#fd < 0) return;
    this.#resumed = true;
    if (this.#slot === NO_SLOT) this.#watch(READ_EVENTS);
    else if (this.#readable && !this.#asked) {
      this.#asked = true;
      this.#loop.soon(this);
    }
  }

  pause(): void {
    this.#resumed = false;
  }

  write(bytes: Buffer, more = false): boolean {
    if (this.#fd < 0 || this.#endWanted) return true;
    let at = 0;
    if (!more && this.#filling === undefined && !this.#blocked) {
      at = this.#send(bytes, 0, bytes.length);
      if (at === bytes.length) return true;
    }
    this.#keep(bytes, at);
    if (this.#fd < 0) return true;
    if (this.#blocked) return false;
    if (!more) return this.#flush();
    this.#hold();
    return true;
  }

  end(): void {
    if (this.#endWanted || this.#fd < 0) return;
    this.#endWanted = true;
    if (!this.#blocked && this.#flush()) this.#finish();
  }

  endAndClose(): void {
    this.#closeWanted = true;
    if (this.#shutDown) this.destroy();
    else this.end();
  }

  destroy(error?: Error): void {
    if (this.#fd < 0) return;
    if (this.#slot !== NO_SLOT) this.#loop.remove(this.#slot);
    close(this.#fd);
    this.#fd = -1;
    this.#resumed = false;
    this.#error = error;
    if (this.#filling !== undefined) releaseScratch(this.#filling);
    this.#filling = undefined;
    this.#full = undefined;
    if (closed.length === 0) queueMicrotask(tellClosed);
    closed.push(this);
  }

  reset(): void {
    if (this.#fd < 0) return;
    resetOnClose(this.#fd);
    this.destroy();
  }

  /** For the loop. */
  onReady(events: number): void {
    if (events === 0) this.#asked = false;
    if ((events & TO_READ) !== 0) this.#readable = true;
    if ((events & READ_ON) !== 0) this.#readOn = true;
    if (this.#resumed && this.#readable) this.#read();
    if (this.#blocked && (events & TO_WRITE) !== 0) this.#onWritable();
  }

  /** The turn is over: what waited for more goes. */
  #releaseHeld(): void {
    this.#held = false;
    if (!this.#blocked) this.#flush();
  }

  /** Whoever closed it has returned. */
  tellClosed(): void {
    this.handler?.onClose(this.#error);
  }

  #watch(events: number): void {
    try {
      if (this.#slot === NO_SLOT) this.#slot = this.#loop.add(this.#fd, events, this);
      else this.#loop.change(this.#fd, this.#slot, events);
    } catch (error) {
      this.destroy(error as SystemError);
    }
  }

  #read(): void {
    for (let reads = 0; reads < READS_PER_TURN; reads++) {
      const count = recvAt(this.#fd, READ_ADDRESS, READ_BYTES, 0);
      if (count <= 0) return count === 0 ? this.#onReadEnd() : this.#onReadError(lastErrno());
      if (count < READ_BYTES && !this.#readOn) this.#readable = false;
      this.handler?.onBytes(readViews.of(count));
      if (!this.#resumed || !this.#readable) return;
    }
    if (this.#asked) return;
    this.#asked = true;
    this.#loop.later(this);
  }

  #onReadEnd(): void {
    this.#resumed = false;
    this.#readEnded = true;
    this.handler?.onEnd();
    if (this.#shutDown) this.destroy();
  }

  #onReadError(errno: number): void {
    if (errno !== EAGAIN) return this.destroy(errnoError("read", -errno));
    this.#readable = false;
    this.#readOn = false;
  }

  /** Copies the bytes from `at` on to where they wait. */
  #keep(bytes: Buffer, from: number): void {
    for (let at = from; at < bytes.length && this.#fd >= 0;) {
      const filling = (this.#filling ??= takeScratch());
      const count = Math.min(filling.length - this.#filled, bytes.length - at);
      bytes.copy(filling, this.#filled, at, at + count);
      this.#filled += count;
      at += count;
      if (this.#filled === filling.length) this.#startNext(filling);
    }
  }

  #startNext(full: Buffer): void {
    (this.#full ??= []).push(full);
    this.#filling = undefined;
    this.#filled = 0;
    if (!this.#blocked) this.#flush();
  }

  #hold(): void {
    if (this.#held || this.#filling === undefined) return;
    this.#held = true;
    atTurnEnd(() => this.#releaseHeld());
  }

  /** Hands over what waits. True when nothing is left waiting. */
  #flush(): boolean {
    while (this.#full !== undefined) {
      const first = this.#full[0]!;
      if (!this.#sendRest(first, first.length)) return this.#fd < 0;
      if (this.#full.length === 1) this.#full = undefined;
      else this.#full.shift();
    }
    if (this.#filling === undefined) return true;
    if (!this.#sendRest(this.#filling, this.#filled)) return this.#fd < 0;
    this.#filling = undefined;
    this.#filled = 0;
    return true;
  }

  /** True when the kernel has taken all of a scratch, which then is free. */
  #sendRest(scratch: Buffer, length: number): boolean {
    this.#sent += this.#send(scratch, this.#sent, length);
    if (this.#fd < 0 || this.#sent < length) return false;
    this.#sent = 0;
    releaseScratch(scratch);
    return true;
  }

  /** How many bytes the kernel took. When it did not take all, we are blocked, or closed. */
  #send(bytes: Buffer, from: number, to: number): number {
    if (from === to) return 0;
    const rest = from === 0 ? bytes : bytes.subarray(from);
    const count = send(this.#fd, rest, to - from, MSG_NOSIGNAL);
    if (count === to - from) return count;
    const errno = count < 0 ? lastErrno() : EAGAIN;
    if (errno === EAGAIN) this.#block();
    else this.destroy(errnoError("write", -errno));
    return Math.max(count, 0);
  }

  #block(): void {
    this.#blocked = true;
    if (this.#watchesWrites) return;
    this.#watchesWrites = true;
    this.#watch(SOCKET_EVENTS);
  }

  #onWritable(): void {
    this.#blocked = false;
    if (!this.#flush() || this.#fd < 0) return;
    if (this.#endWanted) this.#finish();
    else this.handler?.onWritable();
  }

  /** Everything is handed over: FIN. Closing says the same when the peer has finished already. */
  #finish(): void {
    if (this.#fd < 0) return;
    if (this.#readEnded) return this.destroy();
    // A peer that is gone shows when it is read.
    shutdown(this.#fd, SHUT_WR);
    this.#shutDown = true;
    if (this.#closeWanted) this.destroy();
  }
}

/** Sockets whose handlers are still to hear of it. */
let closed: FdSocket[] = [];

function tellClosed(): void {
  const sockets = closed;
  closed = [];
  for (const socket of sockets) {
    try {
      socket.tellClosed();
    } catch (error) {
      throwLater(error);
    }
  }
}

/** Shaped like Node's own: `code` is errno's name. */
export function errnoError(syscall: string, status: number): Error {
  const code = getSystemErrorName(status);
  const message = `${syscall} ${code}: ${getSystemErrorMessage(status)}`;
  return Object.assign(new Error(message), { code, syscall, errno: status });
}
