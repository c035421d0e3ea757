// Bytes between an application's socket and a tunnel stream, or between two sockets: back-pressure both
// ways, half-close, counters. Callbacks are made once per relay, never per chunk.

import type net from "node:net";
import { errorCode, errorMessage } from "../process/errors.ts";
import { ErrorCode, errorCodeName } from "../http2/protocol.ts";
import type { Http2Stream, StreamListener } from "../http2/stream.ts";

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

/** Relays an app socket and a stream until both directions have ended. Never rejects. */
export function relayStream(
  app: net.Socket,
  stream: Http2Stream,
  counters: ByteCounters,
): Promise<RelayEnd> {
  return new Promise((resolve) => {
    new StreamRelay(app, stream, counters, resolve).start();
  });
}

/** Bytes that arrived on a stream before its app socket was there. Bounded by the stream's window. */
export class EarlyBytes implements StreamListener {
  /** Replaced by a client that waits for the answer. */
  onHeaders: StreamListener["onHeaders"] = () => undefined;
  readonly slices: Buffer[] = [];
  ended = false;
  abortCode: number | undefined;
  readonly #onAbort: (code: number) => void;

  constructor(onAbort: (code: number) => void = () => undefined) {
    this.#onAbort = onAbort;
  }

  onData(slice: Buffer): void {
    this.slices.push(slice);
  }

  onEnd(): void {
    this.ended = true;
  }

  onAbort(code: number): void {
    this.abortCode = code;
    this.#onAbort(code);
  }

  onWritable(): void {}
}

class StreamRelay implements StreamListener {
  readonly #app: net.Socket;
  readonly #stream: Http2Stream;
  readonly #counters: ByteCounters;
  readonly #resolve: (end: RelayEnd) => void;
  /** Bytes given to the app socket and not yet taken by the kernel: their credit is owed. */
  #owedBytes = 0;
  #corked = false;
  #appEnded = false;
  #streamEnded = false;
  #error: string | undefined;
  #done = false;

  constructor(
    app: net.Socket,
    stream: Http2Stream,
    counters: ByteCounters,
    resolve: (end: RelayEnd) => void,
  ) {
    this.#app = app;
    this.#stream = stream;
    this.#counters = counters;
    this.#resolve = resolve;
  }

  start(): void {
    const app = this.#app;
    const early = this.#stream.listener;
    this.#stream.listener = this;
    app.on("data", (chunk: Buffer) => this.#onAppData(chunk));
    app.on("end", () => this.#onAppEnd());
    app.on("drain", () => this.#payCredit());
    app.on("error", (error) => this.#onAppError(error));
    app.on("close", () => this.#onAppClose());
    if (early instanceof EarlyBytes) {
      for (const slice of early.slices) this.onData(slice);
      if (early.abortCode !== undefined) return this.onAbort(early.abortCode);
      if (early.ended) this.onEnd();
    } else if (this.#stream.remoteEnded) this.onEnd();
    if (app.destroyed) return this.#onAppClose();
    if (!this.#stream.blocked) app.resume();
  }

  #onAppData(chunk: Buffer): void {
    this.#counters.sent += chunk.length;
    if (!this.#stream.write(chunk)) this.#app.pause();
  }

  onWritable(): void {
    this.#app.resume();
  }

  #onAppEnd(): void {
    this.#appEnded = true;
    this.#stream.end();
    this.#settle();
  }

  onHeaders(): void {}

  onData(slice: Buffer): void {
    this.#counters.received += slice.length;
    this.#owedBytes += slice.length;
    if (!this.#corked) {
      this.#corked = true;
      this.#app.cork();
      process.nextTick(this.#uncork);
    }
    this.#app.write(slice);
  }

  readonly #uncork = () => {
    this.#corked = false;
    this.#app.uncork();
    if (!this.#app.writableNeedDrain) this.#payCredit();
  };

  /** The kernel took the bytes: let the peer send as many again. */
  #payCredit(): void {
    const bytes = this.#owedBytes;
    if (bytes === 0) return;
    this.#owedBytes = 0;
    this.#stream.consumed(bytes);
  }

  onEnd(): void {
    this.#streamEnded = true;
    this.#app.end();
    this.#settle();
  }

  /** NO_ERROR and CANCEL read as a clean end; anything else is the peer's fault to report. */
  onAbort(code: number): void {
    if (code !== ErrorCode.NO_ERROR && code !== ErrorCode.CANCEL) {
      this.#error ??= `stream reset: ${errorCodeName(code)}`;
    }
    this.#streamEnded = true;
    this.#appEnded = true;
    this.#app.end();
    this.#app.destroySoon();
    this.#payCredit();
    this.#settle();
  }

  #onAppError(error: Error): void {
    if (!QUIET_CODES.has(errorCode(error) ?? "")) this.#error ??= errorMessage(error);
  }

  #onAppClose(): void {
    this.#payCredit();
    if (!this.#stream.closed) {
      this.#stream.end();
      if (!this.#streamEnded) this.#stream.reset(ErrorCode.CANCEL);
    }
    this.#appEnded = true;
    this.#streamEnded = true;
    this.#settle();
  }

  #settle(): void {
    if (this.#done || !this.#appEnded || !this.#streamEnded) return;
    this.#done = true;
    this.#resolve(this.#error === undefined ? {} : { error: this.#error });
  }
}

/**
 * Relays two sockets until both directions have ended. `counters.sent` counts a to b.
 * Both sockets must allow half-open. Never rejects.
 */
export function relaySockets(
  a: net.Socket,
  b: net.Socket,
  counters: ByteCounters,
): Promise<RelayEnd> {
  return new Promise((resolve) => {
    let open = 2;
    let failure: string | undefined;
    const closed = () => {
      if (--open === 0) resolve(failure === undefined ? {} : { error: failure });
    };
    const failed = (error: Error) => {
      if (!QUIET_CODES.has(errorCode(error) ?? "")) failure ??= errorMessage(error);
    };
    pump(a, b, (bytes) => (counters.sent += bytes), failed, closed);
    pump(b, a, (bytes) => (counters.received += bytes), failed, closed);
  });
}

/** One direction of a relay. When either socket dies, what was read is still delivered to the other. */
function pump(
  from: net.Socket,
  to: net.Socket,
  count: (bytes: number) => void,
  failed: (error: Error) => void,
  closed: () => void,
): void {
  from.on("data", (chunk: Buffer) => {
    count(chunk.length);
    if (!to.write(chunk)) from.pause();
  });
  to.on("drain", () => from.resume());
  from.on("end", () => to.end());
  from.on("error", failed);
  from.on("close", () => {
    to.end();
    if (!from.readableEnded) to.destroySoon();
    closed();
  });
  if (from.destroyed) {
    to.destroySoon();
    closed();
  } else from.resume();
}
