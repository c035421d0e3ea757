// What a socket has received and nobody has read, without waiting for the event loop to tell of it.

import type { ByteSocket } from "../net/byte-socket.ts";
import { readBuffer } from "../net/scratch.ts";
import { callRaw } from "./libc.ts";

const MSG_DONTWAIT = 0x40;

/**
 * Bytes that wait in a paused socket, at most a read buffer full; valid until the next read of any
 * socket. undefined when there are none: its end, and what broke it, are found by reading on. A socket
 * that was told of these bytes finds nothing, once.
 */
export function readWaiting(socket: ByteSocket): Buffer | undefined {
  if (socket.destroyed) return undefined;
  const count = callRaw("recv", socket.fd, readBuffer, readBuffer.length, MSG_DONTWAIT);
  return count > 0 ? readBuffer.subarray(0, count) : undefined;
}
