// An inbound tunnel without namespaces: a pod on a loopback address of its own whose application echoes,
// and clients with whatever certificate the test gives them.

import net from "node:net";
import { once } from "node:events";
import { asByteSocket } from "@ambit/common/net/net-byte-socket.ts";
import { HboneClientConnection, type TunnelResponse } from "@ambit/common/hbone/client.ts";
import { DEFAULT_HBONE_SETTINGS } from "@ambit/common/hbone/limits.ts";
import { NetByteSocket } from "@ambit/common/net/net-byte-socket.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { TestCa } from "@ambit/common/testing/test-ca.ts";
import type { WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import { type Identity, spiffeId } from "@ambit/common/tls/identity.ts";
import { secureClient, type SecureResult } from "@ambit/common/tls/secure.ts";
import type { Config } from "../config.ts";
import type { Pod } from "../proxy/context.ts";
import { handleInbound } from "../proxy/inbound.ts";
import type { RevocationGuard } from "../proxy/revocation.ts";
import { TestMesh } from "../state/testing-mesh.ts";
import { type TestContext, testContext, testPod } from "./test-context.ts";

export const SERVER_IP = "127.0.0.9";

export const identityOf = (serviceAccount: string, trustDomain = "cluster.local"): Identity => ({
  trustDomain,
  namespace: "ns",
  serviceAccount,
});

export interface InboundLabParts {
  readonly ca?: TestCa;
  readonly mesh?: TestMesh;
  readonly config?: Partial<Config>;
  readonly revocation?: RevocationGuard;
}

export class InboundLab implements Disposable {
  readonly ca: TestCa;
  readonly mesh: TestMesh;
  readonly context: TestContext;
  readonly pod: Pod;
  readonly #listener = net.createServer({ allowHalfOpen: true });
  readonly #app = echo();
  readonly #sockets = new Set<net.Socket>();
  readonly #others: net.Server[] = [];

  private constructor({ ca = new TestCa(), mesh, config, revocation }: InboundLabParts) {
    this.ca = ca;
    this.mesh = (mesh ?? new TestMesh()).workload("web", [SERVER_IP]);
    this.context = testContext({
      state: this.mesh.state,
      config: { packetMark: undefined, originalSource: "never", keepalive: undefined, ...config },
      ...(revocation && { revocation }),
    });
    this.pod = testPod(this.context, { name: "web", namespace: "ns", serviceAccount: "web" });
    const own = ca.issue(identityOf("web"));
    this.context.certificates.update(spiffeId(own.identity), own);
    this.#listener.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      void handleInbound(this.context, this.pod, asByteSocket(socket));
    });
  }

  static async open(parts: InboundLabParts = {}): Promise<InboundLab> {
    const lab = new InboundLab(parts);
    lab.#listener.listen(0, SERVER_IP);
    lab.#app.listen(0, SERVER_IP);
    await Promise.all([once(lab.#listener, "listening"), once(lab.#app, "listening")]);
    return lab;
  }

  get appPort(): number {
    return (this.#app.address() as net.AddressInfo).port;
  }

  /** Another application that echoes; its port. */
  async application(ip: string): Promise<number> {
    const server = echo().listen(0, ip);
    this.#others.push(server);
    await once(server, "listening");
    return (server.address() as net.AddressInfo).port;
  }

  /** A TCP connection to where tunnels arrive. */
  async dial(): Promise<net.Socket> {
    const { port } = this.#listener.address() as net.AddressInfo;
    const socket = net.connect({ port, host: SERVER_IP, allowHalfOpen: true });
    this.#sockets.add(socket);
    socket.on("error", () => undefined);
    await once(socket, "connect");
    return socket;
  }

  /** The client's side of the handshake; the server may refuse after it. */
  async secure(certificate: WorkloadCertificate): Promise<SecureResult> {
    return secureClient(asByteSocket(await this.dial()), certificate, [
      spiffeId(identityOf("web")),
    ]);
  }

  /** An HBONE connection of a client that is let in. */
  async connect(certificate: WorkloadCertificate): Promise<HboneClientConnection> {
    const secured = await this.secure(certificate);
    if (!secured.ok) throw new Error(secured.reason);
    return new HboneClientConnection(secured.socket, {
      settings: DEFAULT_HBONE_SETTINGS,
      clock: systemClock,
    });
  }

  /** A CONNECT to the application. */
  open(
    client: HboneClientConnection,
    headers: Readonly<Record<string, string>> = {},
    authority = `${SERVER_IP}:${this.appPort}`,
  ): Promise<TunnelResponse> {
    return client.openTunnel({ authority, headers });
  }

  /** Resolves with the log line that has these fields, as soon as it is written. */
  async line(fields: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
    for (;;) {
      const found = this.context
        .lines()
        .find((line) => Object.entries(fields).every(([key, value]) => line[key] === value));
      if (found !== undefined) return found;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#listener.close();
    this.#app.close();
    for (const server of this.#others) server.close();
  }
}

function echo(): net.Server {
  return net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => undefined).pipe(socket);
  });
}

/** The application's end of a tunnel, as a client holds it. */
export interface Talk {
  /** Sends, and resolves with the next bytes that come back. */
  say(text: string): Promise<string>;
  /** Sends the last, and resolves with all that comes back. */
  finish(text: string): Promise<Buffer>;
  /** Sends, and resolves with all that comes back until the other side has finished. */
  hear(text: string): Promise<Buffer>;
  /** Resolves when the tunnel or the connection it runs in is over. */
  readonly closed: Promise<unknown>;
}

/** A socket whose other end is relayed through the tunnel. */
export async function talkThrough({ stream }: TunnelResponse): Promise<Talk> {
  const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = net.connect((server.address() as net.AddressInfo).port, "127.0.0.1");
  client.on("error", () => undefined);
  const [accepted] = (await once(server, "connection")) as [net.Socket];
  server.close();
  void stream.relay(new NetByteSocket(accepted), { sent: 0, received: 0 });
  return {
    say: async (text) => {
      client.write(text);
      const [chunk] = (await once(client, "data")) as [Buffer];
      return chunk.toString();
    },
    finish: async (text) => {
      const chunks: Buffer[] = [];
      client.on("data", (chunk: Buffer) => chunks.push(chunk));
      client.end(text);
      await once(client, "close");
      return Buffer.concat(chunks);
    },
    hear: async (text) => {
      const chunks: Buffer[] = [];
      client.on("data", (chunk: Buffer) => chunks.push(chunk));
      client.write(text);
      await once(client, "end");
      return Buffer.concat(chunks);
    },
    closed: once(client, "close"),
  };
}
