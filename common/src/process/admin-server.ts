// A small HTTP/1.1 server for operators and probes: exact paths, GET and POST, bounded bodies, short
// header timeout, drain. Owns its listening socket and connections. Not for users' traffic.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { once } from "node:events";
import { errorCode, errorMessage, UserError } from "./errors.ts";

export interface AdminRequest {
  readonly path: string;
  readonly query: URLSearchParams;
  /** Lower-case names. */
  readonly headers: IncomingMessage["headers"];
  /** The body of a POST; empty for GET. */
  readonly body: string;
}

export interface AdminResponse {
  readonly status: number;
  readonly body: string | Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface AdminRoute {
  readonly method: "GET" | "POST";
  /** Matched exactly. */
  readonly path: string;
  readonly handle: (request: AdminRequest) => AdminResponse | Promise<AdminResponse>;
}

export interface AdminServerOptions {
  /** For error messages: "metrics", "admin". */
  readonly name: string;
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly routes: readonly AdminRoute[];
  /** Told about handlers that threw; the client gets a 500. */
  readonly onError?: (path: string, error: unknown) => void;
}

/** A client that has not sent its request head by then is gone or hostile. Istio's value. */
export const HEADER_TIMEOUT_MS = 2_000;
/** Request heads above this are refused; Istio's buffer. */
export const HEAD_BYTES_MAX = 8 * 1024;
/** Enough for any admin command; more is refused with 413. */
export const BODY_BYTES_MAX = 64 * 1024;
/** Operators and probes need few; a leak in one of them must not cost ours. */
export const CONNECTIONS_MAX = 256;

export class AdminServer {
  readonly #server: Server;
  readonly #name: string;

  private constructor(name: string, server: Server) {
    this.#name = name;
    this.#server = server;
  }

  /** Listens. Throws UserError (exit code 1) when the port is taken or not permitted. */
  static async listen(options: AdminServerOptions): Promise<AdminServer> {
    const router = new Router(options);
    const server = createServer(
      {
        headersTimeout: HEADER_TIMEOUT_MS,
        connectionsCheckingInterval: HEADER_TIMEOUT_MS / 2,
        maxHeaderSize: HEAD_BYTES_MAX,
      },
      (request, response) => void router.serve(request, response),
    );
    server.maxConnections = CONNECTIONS_MAX;
    server.listen(options.port, options.host);
    try {
      await once(server, "listening");
    } catch (error) {
      throw listenError(options.name, options.host, options.port, error);
    }
    return new AdminServer(options.name, server);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get name(): string {
    return this.#name;
  }

  /** Stops accepting, lets requests in flight finish, closes idle connections. */
  async close(): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeIdleConnections();
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** A failed listen() as a sentence for the operator. */
export function listenError(name: string, host: string, port: number, error: unknown): UserError {
  const where = `${name} port ${host}:${port}`;
  const reason: Readonly<Record<string, string>> = {
    EADDRINUSE: `${where} is in use: stop the process that holds it, or configure another port`,
    EACCES: `${where} needs privileges: run as root, or configure a port above 1023`,
    EADDRNOTAVAIL: `${where}: the address is not one of this machine's`,
  };
  return new UserError(reason[errorCode(error) ?? ""] ?? `${where}: ${errorMessage(error)}`, 1);
}

/** From a request to its route's answer. */
class Router {
  readonly #options: AdminServerOptions;

  constructor(options: AdminServerOptions) {
    this.#options = options;
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { status, body, headers } = await this.#answer(request);
    if (response.destroyed) return;
    response.writeHead(status, {
      "content-type": "text/plain; charset=utf-8",
      ...headers,
      "content-length": Buffer.byteLength(body),
    });
    response.end(request.method === "HEAD" ? undefined : body);
  }

  async #answer(request: IncomingMessage): Promise<AdminResponse> {
    const url = parseTarget(request.url ?? "/");
    if (url === undefined) return { status: 400, body: "bad request target\n" };
    const routes = this.#options.routes.filter(({ path }) => path === url.pathname);
    if (routes.length === 0) return { status: 404, body: "not found\n" };
    const method = request.method === "HEAD" ? "GET" : request.method;
    const route = routes.find((candidate) => candidate.method === method);
    if (route === undefined) {
      const allow = routes.map((candidate) => candidate.method).join(", ");
      return { status: 405, body: "method not allowed\n", headers: { allow } };
    }
    return this.#run(route, request, url);
  }

  async #run(route: AdminRoute, request: IncomingMessage, url: URL): Promise<AdminResponse> {
    try {
      const body = await readBody(request);
      if (body === undefined) {
        return { status: 413, body: "body too large\n", headers: { connection: "close" } };
      }
      const { headers } = request;
      return await route.handle({ path: url.pathname, query: url.searchParams, headers, body });
    } catch (error) {
      this.#options.onError?.(route.path, error);
      return { status: 500, body: `${errorMessage(error)}\n` };
    }
  }
}

function parseTarget(target: string): URL | undefined {
  return target.startsWith("/") ? (URL.parse(`http://admin${target}`) ?? undefined) : undefined;
}

/** The whole body as text; undefined past the limit. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** Values as indented JSON with its content type. */
export function jsonResponse(value: unknown, status = 200): AdminResponse {
  const body = `${JSON.stringify(value, undefined, 2)}\n`;
  return { status, body, headers: { "content-type": "application/json" } };
}
