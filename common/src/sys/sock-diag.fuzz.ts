// Fuzz target: whatever a netlink answer holds, reading it ends, with sockets or with a SystemError.

import { assert } from "../process/assert.ts";
import { SystemError } from "./libc.ts";
import { type NetlinkMessage, readMessages } from "./netlink.ts";
import { decodeSockets } from "./sock-diag.ts";

export const name = "sock-diag";

export function fuzz(data: Uint8Array): void {
  const messages: NetlinkMessage[] = [];
  try {
    readMessages(Buffer.from(data), messages, "fuzz");
    const sockets = decodeSockets(messages);
    assert(
      sockets.every(({ local }) => local.port <= 65_535),
      "a port has sixteen bits",
    );
  } catch (error) {
    assert(error instanceof SystemError, "bad bytes are told as such");
  }
}

export function corpus(): Uint8Array[] {
  const done = Buffer.alloc(16);
  done.writeUInt32LE(16, 0);
  done.writeUInt16LE(3, 4);
  const socket = Buffer.alloc(16 + 72 + 8);
  socket.writeUInt32LE(socket.length, 0);
  socket.writeUInt16LE(20, 4);
  socket[16] = 2;
  socket.writeUInt16LE(8, 16 + 72);
  return [done, socket, Buffer.concat([socket, done])];
}
