// The TCP connections of a pod's resolvers: few, short, and never more answers waiting than a client reads.

import type net from "node:net";
import { frameTcp, TcpMessages } from "./tcp-messages.ts";

/** A pod's resolver needs one or two at a time. */
export const TCP_CLIENTS_MAX = 64;
/** As ztunnel's. */
export const TCP_IDLE_TIMEOUT_MS = 5_000;

/** Resolves with the answer to a query, undefined for none. Never rejects. */
export type Answer = (query: Buffer) => Promise<Buffer | undefined>;

export class TcpClients {
  readonly #answer: Answer;
  readonly #sockets = new Set<net.Socket>();
  #answering = 0;
  #onAnswered = () => {};

  constructor(answer: Answer) {
    this.#answer = answer;
  }

  get size(): number {
    return this.#sockets.size;
  }

  /** Serves a connection; one too many is closed. */
  serve(socket: net.Socket): void {
    socket.on("error", () => undefined);
    if (this.#sockets.size >= TCP_CLIENTS_MAX) return void socket.destroy();
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.setTimeout(TCP_IDLE_TIMEOUT_MS, () => socket.destroy());
    const messages = new TcpMessages((query) => void this.#serveQuery(socket, query));
    socket.on("data", (chunk: Buffer) => messages.push(chunk));
    socket.on("drain", () => socket.resume());
  }

  /** Answers what has been asked, then closes all connections. */
  async drain(): Promise<void> {
    for (const socket of this.#sockets) socket.pause();
    while (this.#answering > 0) await new Promise<void>((done) => (this.#onAnswered = done));
    for (const socket of this.#sockets) socket.destroySoon();
  }

  /** Closes all connections at once. */
  close(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** A client that does not read its answers is not read either. */
  async #serveQuery(socket: net.Socket, query: Buffer): Promise<void> {
    this.#answering++;
    const answer = await this.#answer(query);
    if (answer !== undefined && !socket.destroyed && !socket.write(frameTcp(answer))) {
      socket.pause();
    }
    this.#answering--;
    this.#onAnswered();
  }
}
