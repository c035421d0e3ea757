// The small HTTP/1 servers every part has: readiness, metrics, admin. A table of routes; anything else
// is 404, a known path with another method 405.

import { once } from "node:events";
import type http from "node:http";
import type { AddressInfo } from "node:net";
import { errorCode, errorMessage, UserError } from "./errors.ts";

export interface HttpRequest {
  readonly query: URLSearchParams;
  readonly headers: http.IncomingHttpHeaders;
}

export interface HttpReply {
  readonly status: number;
  readonly body: string | Buffer;
  readonly headers?: Readonly<Record<string, string>>;
}

/** "GET /path" to its handler. */
export type Routes = Readonly<
  Record<string, (request: HttpRequest) => HttpReply | Promise<HttpReply>>
>;

/** Importing the module would also make all its exports, and with `WebSocket` the whole of undici: 5 MiB. */
const { createServer } = process.getBuiltinModule("node:http");

/** As ztunnel's (§7.3): a client that does not finish its head is dropped. */
const HEAD_TIMEOUT_MS = 2_000;
const HEAD_BYTES_MAX = 8_192;
/** Probes, scrapers and operators need few; a leak in one of them must not cost us more. */
const CONNECTIONS_MAX = 256;

export function textReply(body: string, status = 200): HttpReply {
  return { status, body, headers: { "content-type": "text/plain; charset=utf-8" } };
}

export function jsonReply(value: unknown, status = 200): HttpReply {
  const headers = { "content-type": "application/json" };
  return { status, body: `${JSON.stringify(value, undefined, 2)}\n`, headers };
}

export interface HttpServer {
  readonly port: number;
  /** Stops accepting; requests in flight finish. */
  close(): Promise<void>;
}

/** Listens; rejects with a UserError that names the port when it is taken. */
export async function startHttpServer(options: {
  host: string;
  port: number;
  routes: Routes;
}): Promise<HttpServer> {
  const { host, port, routes } = options;
  const server = createServer(
    {
      headersTimeout: HEAD_TIMEOUT_MS,
      maxHeaderSize: HEAD_BYTES_MAX,
      connectionsCheckingInterval: HEAD_TIMEOUT_MS,
    },
    (request, response) => void answer(routes, request, response),
  );
  server.maxConnections = CONNECTIONS_MAX;
  try {
    server.listen(port, host);
    await once(server, "listening");
  } catch (error) {
    const taken = errorCode(error) === "EADDRINUSE";
    const why = taken
      ? "it is in use: stop the other process or choose another port"
      : errorMessage(error);
    throw new UserError(`cannot listen on ${host}:${port}: ${why}`);
  }
  server.unref();
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      const closed = once(server, "close");
      server.close();
      server.closeIdleConnections();
      await closed;
    },
  };
}

async function answer(
  routes: Routes,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  const reply = await replyTo(routes, request);
  response.writeHead(reply.status, {
    ...reply.headers,
    "content-length": Buffer.byteLength(reply.body),
  });
  response.end(reply.body);
}

async function replyTo(routes: Routes, request: http.IncomingMessage): Promise<HttpReply> {
  const url = URL.parse(request.url ?? "/", "http://localhost");
  if (url === null) return textReply("malformed request target\n", 400);
  const handler = routes[`${request.method} ${url.pathname}`];
  if (handler === undefined) return unrouted(routes, url.pathname);
  try {
    return await handler({ query: url.searchParams, headers: request.headers });
  } catch (error) {
    return textReply(`${errorMessage(error)}\n`, 500);
  }
}

function unrouted(routes: Routes, path: string): HttpReply {
  const known = Object.keys(routes).some((route) => route.endsWith(` ${path}`));
  return known ? textReply("method not allowed\n", 405) : textReply("not found\n", 404);
}
