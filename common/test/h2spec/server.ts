// The server that h2spec is pointed at: our codec with plain HTTP semantics on top. Answers 200 to each
// well-formed request, once the request has ended.

import { once } from "node:events";
import net from "node:net";
import { Http2Connection } from "../../src/http2/connection.ts";
import type { HeaderField } from "../../src/http2/hpack-table.ts";
import { DEFAULT_LIMITS } from "../../src/http2/limits.ts";
import { ErrorCode } from "../../src/http2/protocol.ts";
import { contentLength, requestFault, trailersFault } from "../../src/http2/message-rules.ts";
import type { Http2Stream, StreamListener } from "../../src/http2/stream.ts";
import { asByteSocket } from "../../src/net/net-byte-socket.ts";
import { systemClock } from "../../src/process/clock.ts";

const BODY = Buffer.from("conformance\n");

/** Listens on a port of loopback that the kernel chooses. */
export async function startConformanceServer(): Promise<{ port: number; close(): void }> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    serve(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const close = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { port: (server.address() as net.AddressInfo).port, close };
}

function serve(socket: net.Socket): void {
  void new Http2Connection(
    asByteSocket(socket),
    {
      role: "server",
      streamWindowBytes: 1 << 20,
      connectionWindowBytes: 4 << 20,
      frameBytesMax: 16_384,
      limits: { ...DEFAULT_LIMITS, streamsMax: 100 },
      clock: systemClock,
      pingIntervalMs: 60_000,
      pingTimeoutMs: 20_000,
    },
    {
      onStream: (stream, fields, endStream) => {
        const length = contentLength(fields);
        if (requestFault(fields) !== undefined || length === "invalid" || (endStream && length)) {
          stream.reset(ErrorCode.PROTOCOL_ERROR);
        } else if (endStream) answer(stream);
        else {
          if (length !== undefined) stream.promiseBody(length);
          stream.listener = new Request(stream);
        }
      },
      onGoAway: () => undefined,
      onClose: () => undefined,
    },
  );
}

function answer(stream: Http2Stream): void {
  stream.sendHeaders([{ name: ":status", value: "200" }]);
  stream.write(BODY);
  stream.end();
}

/** A request whose body is still to come. */
class Request implements StreamListener {
  readonly #stream: Http2Stream;

  constructor(stream: Http2Stream) {
    this.#stream = stream;
  }

  onHeaders(fields: readonly HeaderField[]): void {
    if (trailersFault(fields) !== undefined) this.#stream.reset(ErrorCode.PROTOCOL_ERROR);
  }

  onData(slice: Buffer): void {
    this.#stream.consumed(slice.length);
  }

  onEnd(): void {
    answer(this.#stream);
  }

  onAbort(): void {}
  onWritable(): void {}
}
