// Writes to a Node socket without its stream: one call into the handle, one completion. For a socket
// that nobody else writes to.

import type { Duplex } from "node:stream";
import { errnoError } from "./fd-socket.ts";
import { type NodeHandles, nodeHandles, type StreamHandle } from "./node-handles.ts";

/** One write at a time: `done` is called, never before `write` returned, when the bytes are free. */
export interface DirectWriter {
  write(bytes: Buffer, done: (error?: Error) => void): void;
}

/** By the socket's handle where Node's handles are what we know, else by its stream. */
export function directWriter(socket: Duplex): DirectWriter {
  const { _handle: handle } = socket as unknown as { _handle?: StreamHandle | null };
  if (nodeHandles === undefined || !handle || typeof handle.writeBuffer !== "function") {
    return {
      write: (bytes, done) => void socket.write(bytes, (error) => done(error ?? undefined)),
    };
  }
  return new HandleWriter(nodeHandles, socket);
}

class HandleWriter implements DirectWriter {
  readonly #node: NodeHandles;
  readonly #socket: { readonly _handle: StreamHandle | null };
  #done: (error?: Error) => void = () => undefined;

  constructor(node: NodeHandles, socket: Duplex) {
    this.#node = node;
    this.#socket = socket as unknown as { readonly _handle: StreamHandle | null };
  }

  write(bytes: Buffer, done: (error?: Error) => void): void {
    this.#done = done;
    const { _handle: handle } = this.#socket;
    if (handle === null) return process.nextTick(done, new Error("the socket is closed"));
    const request = this.#node.newRequest("write");
    request.handle = handle;
    request.oncomplete = this.#onComplete;
    const status = handle.writeBuffer(request, bytes);
    if (status < 0) process.nextTick(done, errnoError("write", status));
    else if (!this.#node.writeWaits()) process.nextTick(done);
  }

  readonly #onComplete = (status: number): void => {
    this.#done(status < 0 ? errnoError("write", status) : undefined);
  };
}
