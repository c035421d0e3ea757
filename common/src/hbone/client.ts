// The client end of an HBONE connection: opens CONNECT streams over one TLS socket.

import type { ByteSocket } from "../net/byte-socket.ts";
import type { Clock } from "../process/clock.ts";
import { Http2Connection } from "../http2/connection.ts";
import type { HeaderField } from "../http2/hpack-table.ts";
import { responseFault } from "../http2/message-rules.ts";
import { ErrorCode, errorCodeName } from "../http2/protocol.ts";
import { type Headers, headersFromFields } from "./headers.ts";
import {
  CLIENT_LIMITS,
  CONNECT_ANSWER_TIMEOUT_MS,
  type HboneSettings,
  PING_INTERVAL_MS,
  PING_TIMEOUT_MS,
} from "./limits.ts";
import { EarlyBytes } from "./early-bytes.ts";
import { TunnelStream } from "./stream.ts";

export interface TunnelRequest {
  readonly authority: string;
  readonly headers: Readonly<Record<string, string>>;
  /**
   * What is to go into the tunnel and is there already, or undefined. Asked for only when the CONNECT
   * leaves for a peer that takes bytes before its answer: they share a TLS record and save a round trip.
   */
  readonly early?: () => Buffer | undefined;
}

/** The peer's answer to a CONNECT. The stream is open only when `status` is 200. */
export interface TunnelResponse {
  readonly status: number;
  readonly headers: Headers;
  readonly stream: TunnelStream;
}

/** A CONNECT that got no answer: the stream or its connection ended first. */
export class TunnelError extends Error {
  override readonly name = "TunnelError";
}

export interface HboneClientOptions {
  readonly settings: HboneSettings;
  readonly clock: Clock;
  readonly onGoAway?: () => void;
  readonly onClose?: (reason: string) => void;
}

export class HboneClientConnection {
  readonly #connection: Http2Connection;
  readonly #clock: Clock;
  /** Why we closed it. */
  #cause: Error | undefined;

  /** `socket` is connected and its peer verified. */
  constructor(socket: ByteSocket, options: HboneClientOptions) {
    this.#clock = options.clock;
    this.#connection = new Http2Connection(
      socket,
      {
        role: "client",
        ...options.settings,
        limits: CLIENT_LIMITS,
        clock: options.clock,
        pingIntervalMs: PING_INTERVAL_MS,
        pingTimeoutMs: PING_TIMEOUT_MS,
      },
      {
        onStream: (stream) => stream.reset(ErrorCode.REFUSED_STREAM),
        onGoAway: () => options.onGoAway?.(),
        onClose: (reason) => options.onClose?.(reason),
      },
    );
  }

  /** True while new tunnels may be opened. */
  get ready(): boolean {
    return !this.#connection.goingAway && this.activeStreams < this.streamsMax;
  }

  get activeStreams(): number {
    return this.#connection.activeStreams;
  }

  /** The peer's bound on concurrent streams; unlimited until its SETTINGS came. */
  get streamsMax(): number {
    return this.#connection.peerStreamsMax ?? Number.POSITIVE_INFINITY;
  }

  /**
   * Sends a CONNECT and waits for the answer, whatever its status. Rejects with TunnelError, or with
   * what the connection was closed for meanwhile.
   */
  openTunnel(request: TunnelRequest): Promise<TunnelResponse> {
    return new Promise((resolve, reject) => {
      if (this.#connection.goingAway) {
        reject(
          new TunnelError(
            `tunnel is closing: ${this.#connection.closeReason ?? "the peer goes away"}`,
          ),
        );
        return;
      }
      const stream = this.#connection.request(requestFields(request), false);
      const waiting = this.#connection.peerTakesEarlyData ? request.early?.() : undefined;
      if (waiting !== undefined) stream.write(waiting);
      const timer = this.#clock.after(CONNECT_ANSWER_TIMEOUT_MS, () => {
        stream.reset(ErrorCode.CANCEL);
        reject(
          new TunnelError(`no answer to CONNECT within ${CONNECT_ANSWER_TIMEOUT_MS / 1000} s`),
        );
      });
      const onAbort = (code: number) => {
        timer.cancel();
        const why = this.#connection.closeReason ?? errorCodeName(code);
        reject(this.#cause ?? new TunnelError(`CONNECT failed: ${why}`));
      };
      const onHeaders = (fields: readonly HeaderField[]) => {
        const fault = responseFault(fields);
        const headers = headersFromFields(fields);
        const status = Number(headers.get(":status"));
        if (fault === undefined && status < 200) return;
        timer.cancel();
        if (fault === undefined) {
          resolve({ status, headers, stream: new TunnelStream(stream) });
          return;
        }
        stream.reset(ErrorCode.PROTOCOL_ERROR);
        reject(new TunnelError(`malformed answer to CONNECT: ${fault}`));
      };
      stream.listener = new EarlyBytes(onAbort, onHeaders);
    });
  }

  /** What its streams know it by. */
  get tunnel(): object {
    return this.#connection;
  }

  /** Opens no more tunnels; the connection ends with its last stream. */
  drain(): void {
    this.#connection.drain();
  }

  /** Ends the connection and all its streams at once. */
  close(cause?: Error): void {
    this.#cause = cause;
    this.#connection.destroy(ErrorCode.NO_ERROR, cause?.message);
  }
}

function requestFields({ authority, headers }: TunnelRequest): HeaderField[] {
  const fields = [
    { name: ":method", value: "CONNECT" },
    { name: ":authority", value: authority },
  ];
  for (const name in headers) fields.push({ name, value: headers[name]! });
  return fields;
}
