// Accepting connections as ByteSockets: without making a Node socket for each where that can be had.

import type net from "node:net";
import type { ByteSocket } from "../net/byte-socket.ts";
import { NetByteSocket } from "../net/net-byte-socket.ts";
import { HandleSocket } from "./handle-socket.ts";
import { callRaw, closeFd } from "./libc.ts";
import { type NodeHandles, nodeHandles, type TcpHandle } from "./node-handles.ts";

interface ListeningHandle {
  readonly fd: number;
  onconnection: (status: number, handle: TcpHandle | undefined) => void;
}

/**
 * Hands each connection of a listening server to `onSocket`. The server must have been made with
 * `allowHalfOpen` and `pauseOnConnect`, and have no listener for connections of its own.
 */
export function acceptBytes(server: net.Server, onSocket: (socket: ByteSocket) => void): void {
  const { _handle: handle } = server as unknown as { _handle?: ListeningHandle | null };
  if (nodeHandles === undefined || !handle || typeof handle.onconnection !== "function") {
    server.on("connection", (socket: net.Socket) => onSocket(new NetByteSocket(socket)));
    return;
  }
  const node = nodeHandles;
  const backlog = new Backlog(node, handle.fd);
  const onConnection: ListeningHandle["onconnection"] = (status, accepted) => {
    if (status !== 0 || accepted === undefined) return;
    onSocket(new HandleSocket(accepted));
    backlog.accept(onSocket);
  };
  handle.onconnection = onConnection;
}

/** Connections taken beyond the one that libuv takes in a turn of the event loop. */
const BACKLOG_TAKEN_MAX = 15;
/** While connections come one by one, whether more wait is looked at this seldom. */
const LOOK_EVERY = 8;
const SOCK_NONBLOCK_CLOEXEC = 0x800 | 0x80000;

/**
 * libuv accepts one connection in a turn; what waits behind it would take a turn each, with all that a turn
 * costs. Taken together, their frames share writes.
 */
class Backlog {
  readonly #node: NodeHandles;
  readonly #fd: number;
  #untilLook = 0;

  constructor(node: NodeHandles, fd: number) {
    this.#node = node;
    this.#fd = fd;
  }

  accept(onSocket: (socket: ByteSocket) => void): void {
    if (this.#untilLook-- > 0) return;
    let taken = 0;
    for (; taken < BACKLOG_TAKEN_MAX; taken++) {
      const fd = callRaw("accept4", this.#fd, null, null, SOCK_NONBLOCK_CLOEXEC);
      if (fd < 0) break;
      const handle = this.#node.newTcp();
      if (handle.open(fd) < 0) closeFd(fd);
      else onSocket(new HandleSocket(handle));
    }
    this.#untilLook = taken === 0 ? LOOK_EVERY : 0;
  }
}
