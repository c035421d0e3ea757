// One UDP socket that answers queries, and its end without a lost query: first the kernel stops giving
// it new ones (others that share its port get them), then what has come is answered, then it closes.

import dgram from "node:dgram";
import { setImmediate as nextTurn } from "node:timers/promises";
import { ipFamily } from "@ambit/common/net/ip.ts";
import { fdLoop } from "@ambit/common/sys/fd-loop.ts";
import { type ListenOptions, stopReceiving, udpSocket } from "@ambit/common/sys/sockets.ts";

/** Node reads what waits in batches, one a turn: so many quiet turns mean that nothing is left. */
const QUIET_TURNS = 2;

/** A flood in the kernel's buffer ends after a few hundred; who sends on regardless has left us. */
const DRAIN_TURNS_MAX = 10_000;

export interface UdpHandlers {
  /** Resolves with the answer, undefined for none. Never rejects. */
  answer(query: Buffer): Promise<Buffer | undefined>;
  onError(error: Error): void;
}

export class UdpEndpoint {
  readonly #socket: dgram.Socket;
  readonly #fd: number;
  readonly #heeded: Disposable;
  readonly #options: ListenOptions;
  readonly #handlers: UdpHandlers;
  #closed = false;
  #received = 0;
  #answering = 0;
  #onAnswered = () => {};

  /** Throws SystemError when the port is taken. */
  constructor(netnsFd: number | undefined, options: ListenOptions, handlers: UdpHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    this.#fd = udpSocket(netnsFd, options);
    this.#socket = dgram.createSocket(ipFamily(options.address.ip) === 4 ? "udp4" : "udp6");
    this.#socket.on("error", (error) => handlers.onError(error));
    this.#socket.on("message", (query, from) => void this.#onMessage(query, from));
    this.#socket.bind({ fd: this.#fd });
    this.#heeded = fdLoop().heed(this.#fd);
  }

  /** Takes nothing new, answers what has come, then closes. */
  async drain(): Promise<void> {
    if (this.#closed) return;
    stopReceiving(this.#fd, this.#options.address.ip);
    let received = -1;
    for (let turn = 0, quiet = 0; quiet < QUIET_TURNS && turn < DRAIN_TURNS_MAX; turn++) {
      await nextTurn();
      quiet = received === this.#received ? quiet + 1 : 0;
      received = this.#received;
    }
    while (this.#answering > 0) await new Promise<void>((done) => (this.#onAnswered = done));
    this.close();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#heeded[Symbol.dispose]();
    this.#socket.close();
  }

  async #onMessage(query: Buffer, from: dgram.RemoteInfo): Promise<void> {
    this.#received++;
    this.#answering++;
    const answer = await this.#handlers.answer(query);
    if (answer !== undefined && !this.#closed) {
      this.#socket.send(answer, from.port, from.address, () => undefined);
    }
    this.#answering--;
    this.#onAnswered();
  }
}
