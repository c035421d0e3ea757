// Reads of a Node socket without its stream: each lands in this thread's read buffer and is handed on in
// the same call. End, errors and everything else stay the socket's own.

import type { Duplex } from "node:stream";
import { readBuffer } from "../net/scratch.ts";
import { nodeHandles, type StreamHandle } from "./node-handles.ts";

/**
 * From the next read on, `onBytes` gets what a connected socket (TCP or TLS) reads; the slice is valid
 * only during the call. Nothing changes, and `data` events go on, where Node's handles are not what we
 * know or the socket has none. Bytes that the stream holds already still come as `data`.
 */
export function readDirectly(socket: Duplex, onBytes: (bytes: Buffer) => void): void {
  const { _handle: handle } = socket as unknown as { _handle?: StreamHandle | null };
  const node = nodeHandles;
  if (node === undefined || !handle || typeof handle.useUserBuffer !== "function") return;
  const endOrError = handle.onread;
  handle.useUserBuffer(readBuffer);
  const onRead = function (this: StreamHandle, chunk?: ArrayBuffer): unknown {
    const result = node.readResult();
    if (result <= 0) return endOrError.call(this, chunk);
    onBytes(readBuffer.subarray(0, result));
    return undefined;
  };
  handle.onread = onRead;
}
