// A ByteSocket over a Node socket, by public interfaces only: for what was made as one.

import type net from "node:net";
import { Duplex } from "node:stream";
import { parseIp } from "./ip.ts";
import type { ByteSocket, ByteSocketHandler } from "./byte-socket.ts";
import type { SocketAddress } from "./socket-address.ts";

/** The socket itself, or a Node socket, or another duplex stream, in this form. */
export function asByteSocket(socket: ByteSocket | Duplex): ByteSocket {
  return socket instanceof Duplex ? new NetByteSocket(socket as net.Socket) : socket;
}

export class NetByteSocket implements ByteSocket {
  readonly #socket: net.Socket;
  #handler: ByteSocketHandler | undefined;
  #error: Error | undefined;
  #pressed = false;

  /** `socket` is connected, allows half-open and has no reader yet. */
  constructor(socket: net.Socket) {
    this.#socket = socket.pause();
    socket.on("error", (error) => (this.#error ??= error));
  }

  get handler(): ByteSocketHandler | undefined {
    return this.#handler;
  }

  set handler(handler: ByteSocketHandler) {
    const first = this.#handler === undefined;
    this.#handler = handler;
    if (first) this.#listen();
  }

  get destroyed(): boolean {
    return this.#socket.destroyed;
  }

  get remote(): SocketAddress | undefined {
    return addressOf(this.#socket.remoteAddress, this.#socket.remotePort);
  }

  get local(): SocketAddress | undefined {
    return addressOf(this.#socket.localAddress, this.#socket.localPort);
  }

  get fd(): number {
    const { _handle: handle } = this.#socket as unknown as { _handle: { fd: number } | null };
    if (handle === null || handle.fd < 0) throw new Error("the socket is closed");
    return handle.fd;
  }

  resume(): void {
    this.#socket.resume();
  }

  pause(): void {
    this.#socket.pause();
  }

  write(bytes: Buffer): boolean {
    if (!this.#socket.writable) return true;
    this.#pressed = !this.#socket.write(Buffer.from(bytes));
    return !this.#pressed;
  }

  end(): void {
    this.#socket.end();
  }

  endAndClose(): void {
    const socket = this.#socket;
    if (socket.writableFinished) return void socket.destroy();
    socket.once("finish", () => socket.destroy());
    socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  reset(): void {
    const ending = this.#socket.writableEnded && !this.#socket.writableFinished;
    if (ending) this.#socket.destroy();
    else this.#socket.resetAndDestroy();
  }

  #listen(): void {
    const socket = this.#socket;
    socket.on("data", (bytes: Buffer) => this.#handler?.onBytes(bytes));
    socket.on("end", () => this.#handler?.onEnd());
    socket.on("drain", () => {
      if (this.#pressed) this.#handler?.onWritable();
    });
    socket.on("close", () => this.#handler?.onClose(this.#error));
    socket.pause();
  }
}

function addressOf(text: string | undefined, port: number | undefined): SocketAddress | undefined {
  const ip = text === undefined ? undefined : parseIp(text);
  return ip === undefined || port === undefined ? undefined : { ip, port };
}
