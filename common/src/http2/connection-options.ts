// What an HTTP/2 connection is given: its settings, and who hears of its streams and its end.

import type { Clock } from "../process/clock.ts";
import type { HeaderField } from "./hpack-table.ts";
import type { Http2Limits } from "./limits.ts";
import type { Http2Stream } from "./stream.ts";

export interface ConnectionOptions {
  readonly role: "client" | "server";
  readonly streamWindowBytes: number;
  readonly connectionWindowBytes: number;
  readonly frameBytesMax: number;
  /** Server: tell the peer that DATA may follow a CONNECT before we answer it. */
  readonly earlyConnectData?: boolean;
  readonly limits: Http2Limits;
  readonly clock: Clock;
  /** First PING after this long, and this long after each answer. */
  readonly pingIntervalMs: number;
  /** A PING unanswered for this long ends the connection. */
  readonly pingTimeoutMs: number;
}

export interface ConnectionListener {
  /** Server: the peer opened a stream. Set `stream.listener` before returning. */
  onStream(stream: Http2Stream, fields: readonly HeaderField[], endStream: boolean): void;
  /** The peer will not accept streams beyond those it has (GOAWAY). */
  onGoAway(): void;
  /** The connection is over; every stream has had its onAbort. Called once. */
  onClose(reason: string): void;
}
