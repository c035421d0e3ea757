// Descriptors of kinds that Node cannot watch: sockets of packets, of netlink.

import { closeFd } from "./libc.ts";
import { EPOLLIN, type FdLoop, fdLoop } from "./fd-loop.ts";

export interface FdWatch {
  readonly closed: boolean;
  /** Ends the watch and closes the descriptor; idempotent. */
  close(): void;
}

/**
 * Takes over a descriptor: calls `onReadable` in each turn of the event loop in which it can be read, or
 * has hung up, until it is closed.
 */
export function watchFd(fd: number, onReadable: () => void, loop: FdLoop = fdLoop()): FdWatch {
  let closed = false;
  const slot = loop.add(fd, EPOLLIN, { onReady: onReadable });
  return {
    get closed() {
      return closed;
    },
    close: () => {
      if (closed) return;
      closed = true;
      loop.unwatch(fd, slot);
      closeFd(fd);
    },
  };
}
