// One CONNECT stream, either side, as the proxy sees it: something to relay a socket through.

import type net from "node:net";
import type { ByteSocket } from "../net/byte-socket.ts";
import type { Http2Stream } from "../http2/stream.ts";
import { type ByteCounters, type RelayEnd, relayStream } from "./relay.ts";

export type { ByteCounters, RelayEnd } from "./relay.ts";

export class TunnelStream {
  readonly #stream: Http2Stream;

  constructor(stream: Http2Stream) {
    this.#stream = stream;
  }

  get id(): number {
    return this.#stream.id;
  }

  /** What it runs in: the same object as its connection's `tunnel`. */
  get tunnel(): object {
    return this.#stream.connection;
  }

  get closed(): boolean {
    return this.#stream.closed;
  }

  /**
   * Relays `app` until both directions ended; what came before is delivered first. Never rejects.
   * `counters.sent` counts from the app into the tunnel.
   */
  relay(app: ByteSocket | net.Socket, counters: ByteCounters): Promise<RelayEnd> {
    return relayStream(app, this.#stream, counters);
  }

  reset(code: number): void {
    this.#stream.reset(code);
  }
}
