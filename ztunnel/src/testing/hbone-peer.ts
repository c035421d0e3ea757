// An HBONE peer for tests — a waypoint, a gateway, another ztunnel — that does with each CONNECT what the
// test says, on a loopback address of its own.

import net from "node:net";
import { once } from "node:events";
import { asByteSocket } from "@ambit/common/net/net-byte-socket.ts";
import { type ConnectRequest, HboneServerConnection } from "@ambit/common/hbone/server.ts";
import { DEFAULT_HBONE_SETTINGS } from "@ambit/common/hbone/limits.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { type Identity, spiffeId } from "@ambit/common/tls/identity.ts";
import type { WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import { secureServer } from "@ambit/common/tls/secure.ts";

export interface SeenRequest {
  readonly authority: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  /** Who asked, by certificate. */
  readonly peer: string;
}

export type Script = (request: ConnectRequest, peer: Identity) => void;

export class HbonePeer implements Disposable {
  readonly requests: SeenRequest[] = [];
  readonly #server: net.Server;
  readonly #tunnels: HboneServerConnection[] = [];
  readonly #sockets = new Set<net.Socket>();

  private constructor(server: net.Server) {
    this.#server = server;
  }

  static async listen(ip: string, certificate: WorkloadCertificate, script: Script) {
    const server = net.createServer({ allowHalfOpen: true });
    const peer = new HbonePeer(server);
    server.on("connection", (socket) => void peer.#serve(socket, certificate, script));
    server.listen(0, ip);
    await once(server, "listening");
    return peer;
  }

  /** How many TLS connections were accepted and verified. */
  get connections(): number {
    return this.#tunnels.length;
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  async #serve(raw: net.Socket, certificate: WorkloadCertificate, script: Script): Promise<void> {
    raw.on("error", () => undefined);
    this.#sockets.add(raw);
    const secured = await secureServer(asByteSocket(raw), certificate);
    if (!secured.ok) return;
    const tunnel = new HboneServerConnection(secured.socket, {
      settings: DEFAULT_HBONE_SETTINGS,
      clock: systemClock,
      onConnect: (request) => {
        this.requests.push({
          authority: request.authority,
          headers: Object.fromEntries(request.headers),
          peer: spiffeId(secured.peer),
        });
        script(request, secured.peer);
      },
    });
    this.#tunnels.push(tunnel);
  }

  [Symbol.dispose](): void {
    for (const tunnel of this.#tunnels) tunnel.destroy();
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}

/** Accepts, with these response headers, and relays to a TCP address. */
export function relayTo(port: number, ip: string, headers: Record<string, string> = {}): Script {
  return (request) => {
    const upstream = net.connect({ port, host: ip, allowHalfOpen: true });
    upstream.on("error", () => request.reject(503));
    upstream.once("connect", () => {
      void request.accept(headers).relay(upstream, { sent: 0, received: 0 });
    });
  };
}

/** Answers with a status. */
export function refuse(status: number): Script {
  return (request) => request.reject(status);
}
