// An outbound connection without namespaces: what an application would dial is a listener on loopback, and
// what it accepts is handed to the proxy as if it had been redirected.

import net from "node:net";
import { once } from "node:events";
import { spiffeId, type SpiffeId } from "@ambit/common/tls/identity.ts";
import { NetByteSocket } from "@ambit/common/net/net-byte-socket.ts";
import { TestCa } from "@ambit/common/testing/test-ca.ts";
import type { WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import type { Config } from "../config.ts";
import type { Pod } from "../proxy/context.ts";
import type { NameLookup } from "../proxy/host-names.ts";
import { handleOutbound } from "../proxy/outbound.ts";
import type { RevocationGuard } from "../proxy/revocation.ts";
import { createPool } from "../proxy/tunnel.ts";
import type { TestMesh } from "../state/testing-mesh.ts";
import { workloadIdentity } from "../state/workload.ts";
import { type TestContext, testContext, testPod } from "./test-context.ts";

/** The application's own address in the mesh: what the kernel gives a loopback connection. */
export const CLIENT_IP = "127.0.0.1";

export class OutboundLab implements Disposable {
  readonly ca = new TestCa();
  readonly context: TestContext;
  readonly pod: Pod;
  /** Every choice that is left to chance. */
  random = 0.5;
  readonly #mesh: TestMesh;
  readonly #servers: net.Server[] = [];

  /** `mesh` has a workload `client`, whose pod this is. */
  constructor(
    mesh: TestMesh,
    config: Partial<Config> = {},
    { lookup, revocation }: { lookup?: NameLookup; revocation?: RevocationGuard } = {},
  ) {
    this.#mesh = mesh;
    const plain = { packetMark: undefined, originalSource: "never", keepalive: undefined } as const;
    this.context = testContext({
      state: mesh.state,
      config: { ...plain, ...config },
      random: () => this.random,
      ...(lookup && { lookup }),
      ...(revocation && { revocation }),
    });
    const info = { name: "client", namespace: "ns", serviceAccount: "client" };
    const pool = createPool(this.context, () => this.pod);
    this.pod = { ...testPod(this.context, info), pool };
    const own = this.certificate("client");
    this.context.certificates.update(spiffeId(own.identity), own);
  }

  /** A certificate for the identity of a workload. */
  certificate(name: string): WorkloadCertificate {
    return this.ca.issue(workloadIdentity(this.#mesh.get(name)));
  }

  /** A listener in the place of a destination; its port is free on `ip`. */
  async destination(ip: string): Promise<net.Server> {
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true });
    server.on("connection", (socket) => {
      void handleOutbound(this.context, this.pod, new NetByteSocket(socket));
    });
    return this.#listen(server, ip);
  }

  /** An application that echoes. */
  async echo(ip: string): Promise<net.Server> {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => undefined).pipe(socket);
    });
    return this.#listen(server, ip);
  }

  async #listen(server: net.Server, ip: string): Promise<net.Server> {
    this.#servers.push(server);
    server.listen(0, ip);
    await once(server, "listening");
    return server;
  }

  /** Sends and reads to the end. */
  async talk(destination: net.Server, text: string): Promise<string> {
    const { port, address } = destination.address() as net.AddressInfo;
    const socket = net.connect({ port, host: address, allowHalfOpen: true });
    socket.on("error", () => undefined);
    socket.end(text);
    let received = "";
    socket.on("data", (chunk: Buffer) => (received += chunk.toString()));
    await new Promise((resolve) => socket.once("close", resolve));
    return received;
  }

  /** A connection that stays open; `closed` resolves, be it by an end or by a reset. */
  converse(destination: net.Server): {
    say(text: string): Promise<string>;
    readonly closed: Promise<unknown>;
  } {
    const { port, address } = destination.address() as net.AddressInfo;
    const socket = net.connect({ port, host: address, allowHalfOpen: true });
    socket.on("error", () => undefined);
    return {
      say: async (text) => {
        socket.write(text);
        const [chunk] = (await once(socket, "data")) as [Buffer];
        return chunk.toString();
      },
      closed: new Promise((resolve) => {
        socket.on("end", () => socket.end()).once("close", resolve);
      }),
    };
  }

  /** The access lines so far, without those of the beginnings. */
  lines(): Record<string, unknown>[] {
    return this.context
      .lines()
      .filter(({ scope, level }) => scope === "access" && level !== "debug");
  }

  identity(name: string): SpiffeId {
    return spiffeId(workloadIdentity(this.#mesh.get(name)));
  }

  [Symbol.dispose](): void {
    this.pod.pool.close();
    for (const server of this.#servers) server.close();
  }
}

export function portOf(server: net.Server): number {
  return (server.address() as net.AddressInfo).port;
}
