// Any bytes from a peer, in either role: the connection answers or ends, and never holds more than its bounds.

import type { ByteSocket } from "../net/byte-socket.ts";
import { assert } from "../process/assert.ts";
import { FakeClock } from "../testing/fake-clock.ts";
import { Http2Connection } from "./connection.ts";
import { DEFAULT_LIMITS } from "./limits.ts";
import { CLIENT_PREFACE } from "./protocol.ts";

export const name = "http2-connection";

const SETTINGS = Buffer.from("000000040000000000", "hex");
const HEADERS = Buffer.from("00000401040000000182848786", "hex");
const DATA = Buffer.from("0000050001000000016869686968", "hex");

export function corpus(): Uint8Array[] {
  return [
    Buffer.concat([CLIENT_PREFACE, SETTINGS, HEADERS, DATA]),
    Buffer.concat([SETTINGS, HEADERS]),
    DATA,
  ];
}

export function fuzz(data: Uint8Array): void {
  for (const role of ["client", "server"] as const) feed(role, Buffer.from(data));
}

function feed(role: "client" | "server", data: Buffer): void {
  const socket = sink();
  const connection = new Http2Connection(
    socket,
    {
      role,
      streamWindowBytes: 65_535,
      connectionWindowBytes: 1 << 20,
      frameBytesMax: 16_384,
      limits: { ...DEFAULT_LIMITS, streamsMax: 10 },
      clock: new FakeClock(),
      pingIntervalMs: 10_000,
      pingTimeoutMs: 20_000,
    },
    {
      onStream: (stream) => stream.sendHeaders([{ name: ":status", value: "200" }]),
      onGoAway: () => undefined,
      onClose: () => undefined,
    },
  );
  const middle = Math.floor(data.length / 2);
  socket.handler?.onBytes(data.subarray(0, middle));
  socket.handler?.onBytes(data.subarray(middle));
  assert(connection.activeStreams <= 10, "streams stay within their bound");
  connection.destroy();
}

/** Takes everything at once, and keeps nothing. */
function sink(): ByteSocket {
  const ignore = () => undefined;
  return {
    handler: undefined,
    destroyed: false,
    remote: undefined,
    local: undefined,
    fd: -1,
    resume: ignore,
    pause: ignore,
    write: () => true,
    end: ignore,
    endAndClose: ignore,
    destroy: ignore,
    reset: ignore,
  };
}
