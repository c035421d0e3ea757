// Bytes between an application's socket and a tunnel stream, or between two sockets: back-pressure both
// ways, half-close, counters. Two objects per relay, nothing per chunk.

import type net from "node:net";
import type { ByteSocket, ByteSocketHandler } from "../net/byte-socket.ts";
import { asByteSocket } from "../net/net-byte-socket.ts";
import { errorCode, errorMessage } from "../process/errors.ts";
import { ErrorCode, errorCodeName } from "../http2/protocol.ts";
import type { Http2Stream, StreamListener } from "../http2/stream.ts";
import { EarlyBytes } from "./early-bytes.ts";

/** Live byte counts. `sent`: from the local socket to the far side; `received`: the other way. */
export interface ByteCounters {
  sent: number;
  received: number;
}

/** How a relay ended; absent `error` means well (ztunnel §1.9 counts resets by the app as well). */
export interface RelayEnd {
  readonly error?: string;
}

/** What a relay ending early through these codes means: a peer that left, not a fault. */
const QUIET_CODES = new Set([
  "ECONNRESET",
  "EPIPE",
  "ENOTCONN",
  "ECONNABORTED",
  "ERR_STREAM_WRITE_AFTER_END",
  "ERR_STREAM_DESTROYED",
  "ERR_STREAM_PREMATURE_CLOSE",
]);

/** undefined when there is nothing to report. */
function faultOf(error: Error | undefined): string | undefined {
  if (error === undefined || QUIET_CODES.has(errorCode(error) ?? "")) return undefined;
  return errorMessage(error);
}

/** Relays an app socket and a stream until both directions have ended. Never rejects. */
export function relayStream(
  app: ByteSocket | net.Socket,
  stream: Http2Stream,
  counters: ByteCounters,
): Promise<RelayEnd> {
  return new Promise((resolve) => {
    new StreamRelay(asByteSocket(app), stream, counters, resolve).start();
  });
}

/** The app socket's side of a relay, and what both sides share. */
class StreamRelay implements ByteSocketHandler {
  readonly app: ByteSocket;
  readonly stream: Http2Stream;
  readonly counters: ByteCounters;
  readonly #resolve: (end: RelayEnd) => void;
  readonly #fromStream: StreamSide;
  /** Bytes given to the app socket and not yet taken by the kernel: their credit is owed. */
  owedBytes = 0;
  appEnded = false;
  streamEnded = false;
  #error: string | undefined;
  #done = false;

  constructor(
    app: ByteSocket,
    stream: Http2Stream,
    counters: ByteCounters,
    resolve: (end: RelayEnd) => void,
  ) {
    this.app = app;
    this.stream = stream;
    this.counters = counters;
    this.#resolve = resolve;
    this.#fromStream = new StreamSide(this);
  }

  start(): void {
    const { app, stream } = this;
    const early = stream.listener;
    stream.listener = this.#fromStream;
    app.handler = this;
    if (early instanceof EarlyBytes) this.#replay(early);
    else if (stream.remoteEnded) this.#fromStream.onEnd();
    if (app.destroyed) this.onClose();
    else if (!stream.blocked) app.resume();
  }

  #replay({ slices, abortCode, lost, ended }: EarlyBytes): void {
    for (const slice of slices) this.#fromStream.onData(slice, false);
    if (abortCode !== undefined) this.#fromStream.onAbort(abortCode, lost);
    else if (ended) this.#fromStream.onEnd();
  }

  onBytes(bytes: Buffer): void {
    this.counters.sent += bytes.length;
    if (!this.stream.write(bytes)) this.app.pause();
  }

  onEnd(): void {
    this.appEnded = true;
    this.stream.end();
    this.settle();
  }

  onWritable(): void {
    this.payCredit();
  }

  onClose(error?: Error): void {
    this.#error ??= faultOf(error);
    this.payCredit();
    if (!this.stream.closed) {
      this.stream.end();
      if (!this.streamEnded) this.stream.reset(ErrorCode.CANCEL);
    }
    this.appEnded = true;
    this.streamEnded = true;
    this.settle();
  }

  /** The kernel took the bytes: let the peer send as many again. */
  payCredit(): void {
    const bytes = this.owedBytes;
    if (bytes === 0) return;
    this.owedBytes = 0;
    this.stream.consumed(bytes);
  }

  fail(message: string): void {
    this.#error ??= message;
  }

  settle(): void {
    if (this.#done || !this.appEnded || !this.streamEnded) return;
    this.#done = true;
    this.#resolve(this.#error === undefined ? {} : { error: this.#error });
  }
}

/** The stream's side of a relay. */
class StreamSide implements StreamListener {
  readonly #relay: StreamRelay;

  constructor(relay: StreamRelay) {
    this.#relay = relay;
  }

  onHeaders(): void {}

  onData(slice: Buffer, more: boolean): void {
    const relay = this.#relay;
    relay.counters.received += slice.length;
    relay.owedBytes += slice.length;
    if (relay.app.write(slice, more)) relay.payCredit();
  }

  onEnd(): void {
    const relay = this.#relay;
    relay.streamEnded = true;
    relay.app.end();
    relay.settle();
  }

  /** A reset with NO_ERROR or CANCEL reads as a clean end (ztunnel §1.9); all else is to be reported. */
  onAbort(code: number, lost?: string): void {
    const relay = this.#relay;
    if (lost !== undefined) relay.fail(`tunnel lost: ${lost}`);
    else if (code !== ErrorCode.NO_ERROR && code !== ErrorCode.CANCEL) {
      relay.fail(`stream reset: ${errorCodeName(code)}`);
    }
    relay.streamEnded = true;
    relay.appEnded = true;
    relay.app.endAndClose();
    relay.payCredit();
    relay.settle();
  }

  onWritable(): void {
    this.#relay.app.resume();
  }
}

/**
 * Relays two sockets until both directions have ended. `counters.sent` counts a to b.
 * Both sockets must allow half-open. Never rejects.
 */
export function relaySockets(
  a: ByteSocket | net.Socket,
  b: ByteSocket | net.Socket,
  counters: ByteCounters,
): Promise<RelayEnd> {
  return new Promise((resolve) => {
    new SocketRelay(asByteSocket(a), asByteSocket(b), counters, resolve).start();
  });
}

class SocketRelay {
  readonly counters: ByteCounters;
  readonly #resolve: (end: RelayEnd) => void;
  readonly #a: SocketSide;
  readonly #b: SocketSide;
  #open = 2;
  #error: string | undefined;

  constructor(
    a: ByteSocket,
    b: ByteSocket,
    counters: ByteCounters,
    resolve: (end: RelayEnd) => void,
  ) {
    this.counters = counters;
    this.#resolve = resolve;
    this.#a = new SocketSide(this, a, b, "sent");
    this.#b = new SocketSide(this, b, a, "received");
  }

  start(): void {
    this.#a.start();
    this.#b.start();
  }

  closed(error: Error | undefined): void {
    this.#error ??= faultOf(error);
    if (--this.#open > 0) return;
    this.#resolve(this.#error === undefined ? {} : { error: this.#error });
  }
}

/** What one socket of a relay reads goes to the other. What was read is delivered even when it dies. */
class SocketSide implements ByteSocketHandler {
  readonly #relay: SocketRelay;
  readonly #from: ByteSocket;
  readonly #to: ByteSocket;
  readonly #counter: keyof ByteCounters;
  #ended = false;

  constructor(relay: SocketRelay, from: ByteSocket, to: ByteSocket, counter: keyof ByteCounters) {
    this.#relay = relay;
    this.#from = from;
    this.#to = to;
    this.#counter = counter;
  }

  start(): void {
    this.#from.handler = this;
    if (this.#from.destroyed) this.onClose();
    else this.#from.resume();
  }

  onBytes(bytes: Buffer): void {
    this.#relay.counters[this.#counter] += bytes.length;
    if (!this.#to.write(bytes)) this.#from.pause();
  }

  onEnd(): void {
    this.#ended = true;
    this.#to.end();
  }

  /** We can be written to again: the other side may be read again. */
  onWritable(): void {
    this.#to.resume();
  }

  onClose(error?: Error): void {
    if (!this.#ended) this.#to.endAndClose();
    this.#relay.closed(error);
  }
}
