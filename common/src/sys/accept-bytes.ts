// Accepting connections as ByteSockets: without making a Node socket for each where that can be had.

import type net from "node:net";
import type { ByteSocket } from "../net/byte-socket.ts";
import { NetByteSocket } from "../net/net-byte-socket.ts";
import { HandleSocket } from "./handle-socket.ts";
import { nodeHandles, type TcpHandle } from "./node-handles.ts";

interface ListeningHandle {
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
  handle.onconnection = (status, accepted) => {
    if (status === 0 && accepted !== undefined) onSocket(new HandleSocket(accepted));
  };
}
