// A pod's DNS proxy without namespaces: on a loopback address of its own, with an upstream resolver that
// does what the test says, and clients over UDP and TCP.

import dgram from "node:dgram";
import net from "node:net";
import { once } from "node:events";
import packet from "dns-packet";
import type { Ip } from "@ambit/common/net/ip.ts";
import type { Config } from "../config.ts";
import { type DnsSurroundings, DnsProxy } from "../dns/server.ts";
import { frameTcp, TcpMessages } from "../dns/tcp-messages.ts";
import type { Pod } from "../proxy/context.ts";
import type { TestMesh } from "../state/testing-mesh.ts";
import { type TestContext, testContext, testPod } from "./test-context.ts";

export type Transport = "udp" | "tcp";
export const TRANSPORTS: readonly Transport[] = ["udp", "tcp"];

/** One loopback address per resolver, so that they can have the same port over UDP and TCP. */
let used = 0;
const nextIp = () => `127.77.${process.pid % 250}.${(process.pid % 7) * 32 + (++used % 32)}` as Ip;
const PORT = 10_053;

/** Answers a query; undefined says nothing. */
export type UpstreamScript = (query: Buffer, transport: Transport) => Buffer | undefined;

export class Upstream implements Disposable {
  readonly ip = nextIp();
  readonly port = PORT;
  readonly queries: { readonly query: Buffer; readonly transport: Transport }[] = [];
  readonly #udp = dgram.createSocket("udp4");
  readonly #tcp: net.Server;
  readonly #sockets = new Set<net.Socket>();

  private constructor(script: UpstreamScript) {
    const answer = (query: Buffer, transport: Transport) => {
      this.queries.push({ query, transport });
      return script(query, transport);
    };
    this.#udp.on("message", (query, from) => {
      const reply = answer(query, "udp");
      if (reply !== undefined) this.#udp.send(reply, from.port, from.address);
    });
    this.#tcp = net.createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      const messages = new TcpMessages((query) => {
        const reply = answer(query, "tcp");
        if (reply !== undefined) socket.write(frameTcp(reply));
      });
      socket.on("data", (chunk: Buffer) => messages.push(chunk));
    });
  }

  static async listen(script: UpstreamScript): Promise<Upstream> {
    const upstream = new Upstream(script);
    upstream.#udp.bind(PORT, upstream.ip);
    upstream.#tcp.listen(PORT, upstream.ip);
    await Promise.all([once(upstream.#udp, "listening"), once(upstream.#tcp, "listening")]);
    return upstream;
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#udp.close();
    this.#tcp.close();
  }
}

/** Knows no name. */
export const NXDOMAIN: UpstreamScript = (query) => {
  const answer = Buffer.from(query);
  answer.writeUInt16BE(0x8183, 2);
  return answer;
};

/** The library's declarations lack the code. */
export type DecodedAnswer = packet.DecodedPacket & { readonly rcode: string };

export class DnsLab implements Disposable {
  readonly context: TestContext;
  readonly pod: Pod;
  readonly proxy: DnsProxy;
  readonly ip = nextIp();

  /** The pod is that of the workload `client` of namespace `ns`. */
  constructor(
    mesh: TestMesh,
    surroundings: Partial<DnsSurroundings> = {},
    config: Partial<Config> = {},
  ) {
    this.context = testContext({
      state: mesh.state,
      config: {
        packetMark: undefined,
        dnsProxyAddress: { ip: this.ip, port: PORT },
        preferredServiceNamespace: "preferred",
        ...config,
      },
      random: Math.random,
    });
    const info = { name: "client", namespace: "ns", serviceAccount: "client" };
    this.pod = testPod(this.context, info);
    this.proxy = new DnsProxy(this.context, this.pod, {
      upstreams: [],
      searchDomains: [],
      ...surroundings,
    });
  }

  /** A query about a name, and what came back, decoded. */
  async ask(
    name: string,
    type: packet.RecordType = "A",
    transport: Transport = "udp",
    query: packet.Packet = {},
  ): Promise<DecodedAnswer> {
    const message = packet.encode({
      type: "query",
      id: 4711,
      flags: packet.RECURSION_DESIRED,
      questions: [{ type, name }],
      ...query,
    });
    return packet.decode(await this.exchange(message, transport)) as DecodedAnswer;
  }

  /** The bytes that come back for these. */
  async exchange(message: Buffer, transport: Transport): Promise<Buffer> {
    return transport === "udp" ? this.#overUdp(message) : this.#overTcp(message);
  }

  async #overUdp(message: Buffer): Promise<Buffer> {
    const socket = dgram.createSocket("udp4");
    try {
      socket.send(message, PORT, this.ip);
      const [answer] = (await once(socket, "message")) as [Buffer];
      return answer;
    } finally {
      socket.close();
    }
  }

  async #overTcp(message: Buffer): Promise<Buffer> {
    const socket = net.connect(PORT, this.ip);
    try {
      return await new Promise<Buffer>((resolve, reject) => {
        const messages = new TcpMessages(resolve);
        socket.on("data", (chunk: Buffer) => messages.push(chunk));
        socket.on("error", reject);
        socket.on("close", () => reject(new Error("closed without an answer")));
        socket.write(frameTcp(message));
      });
    } finally {
      socket.destroy();
    }
  }

  [Symbol.dispose](): void {
    this.proxy.close();
  }
}
