// A TCP connection as a proxy needs it: bytes in by callback, bytes out by copy, half-close, pause. Less
// than a Node stream, so that a connection costs little to make and a read costs no garbage.

import type { SocketAddress } from "./socket-address.ts";

/** Who hears of a socket. After onClose nothing follows. */
export interface ByteSocketHandler {
  /** `bytes` is valid only during the call. */
  onBytes(bytes: Buffer): void;
  /** The peer has finished sending. */
  onEnd(): void;
  /** What `write` could not hand over is gone: more may be written. */
  onWritable(): void;
  /** Both directions are over, or it broke; `error` says how. */
  onClose(error?: Error): void;
}

/** A connected socket. It starts paused; until a handler is set it does not read. */
export interface ByteSocket {
  handler: ByteSocketHandler | undefined;
  /** Closed, by either side or by an error. */
  readonly destroyed: boolean;
  /** The peer; undefined when it is gone already. */
  readonly remote: SocketAddress | undefined;
  /** Our end; undefined when the peer is gone already. */
  readonly local: SocketAddress | undefined;
  /** The descriptor; throws when the socket is closed. */
  readonly fd: number;
  resume(): void;
  pause(): void;
  /**
   * Sends bytes, which the caller may reuse at once. With `more`, they may wait for what follows, at
   * most to the end of this turn of the event loop. False: the kernel is full, wait for onWritable.
   */
  write(bytes: Buffer, more?: boolean): boolean;
  /** Finishes our direction, after what was written. */
  end(): void;
  /** Like end, and closes once that is done, whatever the peer does. */
  endAndClose(): void;
  /** Closes at once; what was not handed over is lost. */
  destroy(): void;
  /** Closes at once with RST: the peer must not take what it got for all there was. */
  reset(): void;
}
