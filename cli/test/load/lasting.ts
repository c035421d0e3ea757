// Connections of a load that stay: upgraded ones, on which every word must come back. One that is cut is
// told of and made anew.

import net from "node:net";
import type { Tally } from "./tally.ts";

/** From an answer to the next word. */
const TALK_PERIOD_MS = 20;
const UPGRADE = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

export class Lasting {
  readonly #host: string;
  readonly #name: string;
  readonly #answerTimeoutMs: number;
  readonly #tally: Tally;
  #socket: net.Socket | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** What has not come back of the word that was spoken. */
  #awaited = "";
  #words = 0;

  /** `name` is its own in the tally's rounds. */
  constructor(host: string, name: string, answerTimeoutMs: number, tally: Tally) {
    this.#host = host;
    this.#name = name;
    this.#answerTimeoutMs = answerTimeoutMs;
    this.#tally = tally;
    this.#connect();
  }

  stop(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    clearTimeout(this.#timer);
    socket?.destroy();
  }

  #connect(): void {
    const socket = net.connect(80, this.#host);
    this.#socket = socket;
    let head = "";
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#cut(socket, error.code ?? error.message);
    });
    socket.on("close", () => this.#cut(socket, "closed"));
    socket.on("data", (chunk: Buffer) => {
      if (socket !== this.#socket) return;
      if (head.endsWith("\r\n\r\n")) return this.#hear(socket, chunk.toString());
      head += chunk.toString();
      if (head.endsWith("\r\n\r\n")) this.#say(socket);
    });
    socket.write(UPGRADE);
    this.#awaitAnswer(socket);
  }

  #say(socket: net.Socket): void {
    this.#awaited = `word ${this.#words++}.`;
    socket.write(this.#awaited);
    this.#awaitAnswer(socket);
  }

  #awaitAnswer(socket: net.Socket): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#cut(socket, "no answer"), this.#answerTimeoutMs);
  }

  #hear(socket: net.Socket, text: string): void {
    if (!this.#awaited.startsWith(text)) return this.#cut(socket, `heard ${text}`);
    this.#awaited = this.#awaited.slice(text.length);
    if (this.#awaited !== "") return;
    this.#tally.talk(this.#name);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#say(socket), TALK_PERIOD_MS);
  }

  #cut(socket: net.Socket, why: string): void {
    if (socket !== this.#socket) return;
    this.#tally.cut({ host: this.#host, port: socket.localPort ?? 0, why });
    this.stop();
    this.#timer = setTimeout(() => this.#connect(), TALK_PERIOD_MS);
  }
}
