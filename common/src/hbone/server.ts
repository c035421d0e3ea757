// The server end of an HBONE connection: hands each CONNECT to a handler that accepts or rejects it.

import type { ByteSocket } from "../net/byte-socket.ts";
import type { Clock } from "../process/clock.ts";
import { Http2Connection } from "../http2/connection.ts";
import type { HeaderField } from "../http2/hpack-table.ts";
import { requestFault } from "../http2/message-rules.ts";
import { ErrorCode } from "../http2/protocol.ts";
import type { Http2Stream } from "../http2/stream.ts";
import { type Headers, headersFromFields } from "./headers.ts";
import { type HboneSettings, PING_INTERVAL_MS, PING_TIMEOUT_MS, SERVER_LIMITS } from "./limits.ts";
import { EarlyBytes } from "./early-bytes.ts";
import { TunnelStream } from "./stream.ts";

/** One request on an HBONE connection. Exactly one of accept and reject must be called. */
export class ConnectRequest {
  readonly method: string;
  readonly authority: string | undefined;
  readonly headers: Headers;
  readonly #stream: Http2Stream;
  readonly #early: EarlyBytes;
  #onAbort: (() => void) | undefined;

  constructor(stream: Http2Stream, headers: Headers, endStream: boolean) {
    this.#stream = stream;
    this.method = headers.get(":method") ?? "";
    this.authority = headers.get(":authority");
    this.headers = headers;
    this.#early = new EarlyBytes(() => this.#onAbort?.());
    this.#early.ended = endStream;
    stream.listener = this.#early;
  }

  /** What it runs in: the same object as its connection's `tunnel`. */
  get tunnel(): object {
    return this.#stream.connection;
  }

  /** The peer gave up before it got an answer. */
  get aborted(): boolean {
    return this.#early.abortCode !== undefined;
  }

  onAbort(callback: () => void): void {
    this.#onAbort = callback;
    if (this.aborted) callback();
  }

  /** Answers 200; the tunnel is open. */
  accept(headers: Readonly<Record<string, string>> = {}): TunnelStream {
    this.#stream.sendHeaders(responseFields(200, headers));
    return new TunnelStream(this.#stream);
  }

  /** Answers with an error status and ends the stream (ztunnel §1.4). */
  reject(status: number): void {
    this.#stream.sendHeaders(responseFields(status, {}), true);
    if (!this.#stream.closed) this.#stream.reset(ErrorCode.NO_ERROR);
  }
}

export interface HboneServerOptions {
  readonly settings: HboneSettings;
  readonly clock: Clock;
  onConnect(request: ConnectRequest): void;
  onClose?(reason: string): void;
}

export class HboneServerConnection {
  readonly #connection: Http2Connection;

  /** `socket` is accepted and its peer verified. */
  constructor(socket: ByteSocket, options: HboneServerOptions) {
    this.#connection = new Http2Connection(
      socket,
      {
        role: "server",
        ...options.settings,
        earlyConnectData: true,
        limits: SERVER_LIMITS,
        clock: options.clock,
        pingIntervalMs: PING_INTERVAL_MS,
        pingTimeoutMs: PING_TIMEOUT_MS,
      },
      {
        onStream: (stream, fields, endStream) => onStream(stream, fields, endStream, options),
        onGoAway: () => undefined,
        onClose: (reason) => options.onClose?.(reason),
      },
    );
  }

  get activeStreams(): number {
    return this.#connection.activeStreams;
  }

  /** What its streams know it by. */
  get tunnel(): object {
    return this.#connection;
  }

  /** Graceful GOAWAY: streams in flight go on, the peer opens new ones elsewhere. */
  drain(): void {
    this.#connection.drain();
  }

  /** Cuts the connection and every stream. */
  destroy(reason?: string): void {
    this.#connection.destroy(ErrorCode.NO_ERROR, reason);
  }
}

function onStream(
  stream: Http2Stream,
  fields: readonly HeaderField[],
  endStream: boolean,
  options: HboneServerOptions,
): void {
  if (requestFault(fields) !== undefined) stream.reset(ErrorCode.PROTOCOL_ERROR);
  else options.onConnect(new ConnectRequest(stream, headersFromFields(fields), endStream));
}

function responseFields(status: number, headers: Readonly<Record<string, string>>): HeaderField[] {
  const fields = [{ name: ":status", value: String(status) }];
  for (const name in headers) fields.push({ name, value: headers[name]! });
  return fields;
}
