// Accepting connections as ByteSockets: by system calls on the listening descriptor, several in a turn
// of the event loop, so that what they bring shares writes.

import type { ByteSocket } from "../net/byte-socket.ts";
import { accept4 } from "./byte-calls.ts";
import { EMFILE, ENFILE, ENOBUFS, ENOMEM, SOCK_CLOEXEC, SOCK_NONBLOCK } from "./constants.ts";
import { EPOLLIN, type FdLoop, fdLoop, type FdTarget } from "./fd-loop.ts";
import { FdSocket } from "./fd-socket.ts";
import { closeFd, lastErrno } from "./libc.ts";

export interface ByteListener {
  /** Takes no more: who waits to be accepted is reset by the kernel. Idempotent. */
  close(): void;
}

/** Hands each connection of a listening descriptor, which it takes over, to `onSocket`. */
export function acceptBytes(fd: number, onSocket: (socket: ByteSocket) => void): ByteListener {
  return new FdListener(fd, onSocket);
}

/** Connections taken in one turn. */
const ACCEPTS_MAX = 16;
/** While connections come one by one, whether more wait is looked at this seldom. */
const LOOK_EVERY = 8;
/** For want of descriptors or memory, which others must give back first. */
export const ACCEPT_RETRY_MS = 100;
const SCARCE: ReadonlySet<number> = new Set([EMFILE, ENFILE, ENOBUFS, ENOMEM]);

/**
 * Watched for its state and not for changes: it need not look whether more wait, and still hears of them
 * in the next turn.
 */
class FdListener implements ByteListener, FdTarget {
  readonly #fd: number;
  readonly #onSocket: (socket: ByteSocket) => void;
  readonly #loop: FdLoop;
  readonly #slot: number;
  #closed = false;
  #untilLook = 0;
  #retry: NodeJS.Timeout | undefined;

  constructor(fd: number, onSocket: (socket: ByteSocket) => void, loop = fdLoop()) {
    this.#fd = fd;
    this.#onSocket = onSocket;
    this.#loop = loop;
    this.#slot = loop.add(fd, EPOLLIN, this);
  }

  onReady(): void {
    const looks = this.#untilLook-- <= 0;
    let taken = 0;
    while (taken < (looks ? ACCEPTS_MAX : 1) && this.#accept()) taken++;
    if (looks) this.#untilLook = taken > 1 ? 0 : LOOK_EVERY;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#loop.unwatch(this.#fd, this.#slot);
    closeFd(this.#fd);
  }

  /** False when there is none, or none can be taken. */
  #accept(): boolean {
    if (this.#closed) return false;
    const fd = accept4(this.#fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) this.#onSocket(new FdSocket(fd, this.#loop));
    else if (SCARCE.has(lastErrno())) this.#pause();
    return fd >= 0;
  }

  /** Until then, nothing tells of those that wait: it would do so without end. */
  #pause(): void {
    this.#loop.change(this.#fd, this.#slot, 0);
    this.#retry = setTimeout(() => {
      this.#untilLook = 0;
      this.#loop.change(this.#fd, this.#slot, EPOLLIN);
    }, ACCEPT_RETRY_MS);
  }
}
