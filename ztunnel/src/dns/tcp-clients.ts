// The TCP connections of a pod's resolvers: few, short, and never more answers waiting than a client reads.

import type { ByteSocket, ByteSocketHandler } from "@ambit/common/net/byte-socket.ts";
import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { frameTcp, TcpMessages } from "./tcp-messages.ts";

/** A pod's resolver needs one or two at a time. */
export const TCP_CLIENTS_MAX = 64;
/** As ztunnel's. */
export const TCP_IDLE_TIMEOUT_MS = 5_000;

/** Resolves with the answer to a query, undefined for none. Never rejects. */
export type Answer = (query: Buffer) => Promise<Buffer | undefined>;

export class TcpClients {
  readonly #answer: Answer;
  readonly #clock: Clock;
  readonly #clients = new Set<TcpClient>();
  #answering = 0;
  #onAnswered = () => {};

  constructor(answer: Answer, clock: Clock) {
    this.#answer = answer;
    this.#clock = clock;
  }

  get size(): number {
    return this.#clients.size;
  }

  /** Serves a connection; one too many is closed. */
  serve(socket: ByteSocket): void {
    if (this.#clients.size >= TCP_CLIENTS_MAX) return socket.destroy();
    const client = new TcpClient(socket, this.#clock, this);
    this.#clients.add(client);
    client.start();
  }

  /** Answers what has been asked, then closes all connections. */
  async drain(): Promise<void> {
    for (const { socket } of this.#clients) socket.pause();
    while (this.#answering > 0) await new Promise<void>((done) => (this.#onAnswered = done));
    for (const { socket } of this.#clients) socket.endAndClose();
  }

  /** Closes all connections at once. */
  close(): void {
    for (const { socket } of this.#clients) socket.destroy();
  }

  /** For the clients. */
  async serveQuery(client: TcpClient, query: Buffer): Promise<void> {
    this.#answering++;
    client.answered(await this.#answer(query));
    this.#answering--;
    this.#onAnswered();
  }

  left(client: TcpClient): void {
    this.#clients.delete(client);
  }
}

class TcpClient implements ByteSocketHandler {
  readonly socket: ByteSocket;
  readonly #clock: Clock;
  readonly #clients: TcpClients;
  readonly #messages: TcpMessages;
  #answering = 0;
  #ended = false;
  #idle: Timer | undefined;

  constructor(socket: ByteSocket, clock: Clock, clients: TcpClients) {
    this.socket = socket;
    this.#clock = clock;
    this.#clients = clients;
    this.#messages = new TcpMessages((query) => {
      this.#answering++;
      void clients.serveQuery(this, query);
    });
  }

  start(): void {
    this.socket.handler = this;
    this.#active();
    this.socket.resume();
  }

  /** A client that does not read its answers is not read either. */
  answered(answer: Buffer | undefined): void {
    this.#answering--;
    if (answer !== undefined && !this.socket.destroyed) {
      this.#active();
      if (!this.socket.write(frameTcp(answer))) this.socket.pause();
    }
    this.#endWhenAnswered();
  }

  onBytes(bytes: Buffer): void {
    this.#active();
    this.#messages.push(Buffer.from(bytes));
  }

  onEnd(): void {
    this.#ended = true;
    this.#endWhenAnswered();
  }

  onWritable(): void {
    this.#active();
    this.socket.resume();
  }

  onClose(): void {
    this.#idle?.cancel();
    this.#clients.left(this);
  }

  #endWhenAnswered(): void {
    if (this.#ended && this.#answering === 0) this.socket.end();
  }

  #active(): void {
    this.#idle?.cancel();
    this.#idle = this.#clock.after(TCP_IDLE_TIMEOUT_MS, () => this.socket.destroy());
  }
}
