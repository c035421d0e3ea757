// Listening gRPC servers: bounds, keepalive, clear errors for taken ports, and a drain with a deadline.

import { Server, type ServerCredentials } from "@grpc/grpc-js";
import type { Clock } from "../process/clock.ts";
import { errorMessage, UserError } from "../process/errors.ts";
import { KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS, MESSAGE_BYTES_MAX } from "./grpc-channel.ts";
import { REQUEST_BYTES_MAX } from "./limits.ts";

export interface GrpcServerOptions {
  /** For error messages. */
  readonly name: string;
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly credentials: ServerCredentials;
  /** Adds the services. */
  readonly register: (server: Server) => void;
  readonly clock: Clock;
}

/** Streams of one connection: a proxy has one of xDS and a few calls of the CA. */
const STREAMS_PER_CONNECTION_MAX = 256;

export class GrpcServer {
  readonly port: number;
  readonly #server: Server;
  readonly #clock: Clock;

  private constructor(server: Server, port: number, clock: Clock) {
    this.#server = server;
    this.port = port;
    this.#clock = clock;
  }

  /** Listens. Throws UserError (exit code 1) that names the port when it cannot. */
  static async listen(options: GrpcServerOptions): Promise<GrpcServer> {
    const { name, host, port, credentials, register, clock } = options;
    const server = new Server({
      "grpc.max_receive_message_length": REQUEST_BYTES_MAX,
      "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
      "grpc.keepalive_time_ms": KEEPALIVE_INTERVAL_MS,
      "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
      "grpc.max_concurrent_streams": STREAMS_PER_CONNECTION_MAX,
    });
    register(server);
    const address = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
    const bound = await new Promise<number>((resolve, reject) => {
      server.bindAsync(address, credentials, (error, boundPort) =>
        error === null ? resolve(boundPort) : reject(listenError(name, address, error)),
      );
    });
    return new GrpcServer(server, bound, clock);
  }

  /** Stops accepting and waits for calls in flight; cuts them after `deadlineMs`. */
  close(deadlineMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#clock.after(deadlineMs, () => this.#server.forceShutdown());
      this.#server.tryShutdown(() => {
        timer.cancel();
        resolve();
      });
    });
  }

  /** Cuts every connection at once. */
  destroy(): void {
    this.#server.forceShutdown();
  }
}

/** grpc-js reports bind errors as text only. */
function listenError(name: string, address: string, error: unknown): UserError {
  const reason = errorMessage(error);
  const why = reason.includes("EADDRINUSE")
    ? "it is in use: stop the other process or choose another port"
    : reason;
  return new UserError(`cannot listen on ${address} (${name}): ${why}`);
}
