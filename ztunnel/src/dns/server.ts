// The DNS proxy of one pod: UDP and TCP on the pod's loopback. Answers A and AAAA for what the mesh owns
// and relays everything else bit for bit.

import { existsSync, readFileSync } from "node:fs";
import net from "node:net";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { inNetns } from "@ambit/common/sys/netns.ts";
import { listenTcp } from "@ambit/common/sys/sockets.ts";
import type { Pod, ProxyContext } from "../proxy/context.ts";
import { identify } from "../proxy/identify.ts";
import { encodeAnswer, encodeError, parseQuery, Rcode, type Question } from "./answer.ts";
import { Forwarder, frameTcp, readNameservers, TcpMessages } from "./forward.ts";
import { resolveLocally } from "./resolve.ts";
import { UdpEndpoint } from "./udp-endpoint.ts";

/** TCP clients of one pod; a pod's resolver needs one or two. */
const TCP_CLIENTS_MAX = 64;
/** As ztunnel's. */
const TCP_IDLE_TIMEOUT_MS = 5_000;
const DISABLE_IPV6 = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

type Transport = "udp" | "tcp";

export class DnsProxy {
  readonly #context: ProxyContext;
  readonly #pod: Pod;
  readonly #forwarder: Forwarder;
  readonly #udp: UdpEndpoint[] = [];
  readonly #tcp: net.Server[] = [];
  #tcpClients = 0;

  /** Binds UDP and TCP; throws SystemError, with nothing left open, when a port is taken. */
  constructor(context: ProxyContext, pod: Pod, port: number) {
    this.#context = context;
    this.#pod = pod;
    const { packetMark, ipv6 } = context.config;
    this.#forwarder = new Forwarder({
      netnsFd: pod.netnsFd,
      mark: packetMark,
      clock: context.clock,
      upstreams: readNameservers(),
      forced: pod.drain.forced,
    });
    const loopbacks = ["127.0.0.1", ...(ipv6 && podHasIpv6(pod) ? ["::1"] : [])] as Ip[];
    try {
      for (const ip of loopbacks) this.#bind(ip, port);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Takes no new queries; resolves when those that have come are answered and all is closed. */
  async drain(): Promise<void> {
    for (const server of this.#tcp.splice(0)) server.close();
    await Promise.all(this.#udp.map((endpoint) => endpoint.drain()));
  }

  /** Closes at once. */
  close(): void {
    for (const server of this.#tcp.splice(0)) server.close();
    for (const endpoint of this.#udp.splice(0)) endpoint.close();
  }

  /** Serves what comes to one more listening descriptor, which is the caller's to close with the server. */
  acceptTcp(fd: number): net.Server {
    const tcp = net.createServer((socket) => this.#serveTcp(socket));
    tcp.listen({ fd });
    return tcp;
  }

  #bind(ip: Ip, port: number): void {
    const { packetMark, portReuse } = this.#context.config;
    const options = {
      address: { ip, port },
      reusePort: portReuse,
      ...(packetMark !== undefined && { mark: packetMark }),
    };
    const udp = new UdpEndpoint(this.#pod.netnsFd, options, {
      answer: (query) => this.#answer(query, "udp"),
      onError: (error) =>
        this.#context.log.warn("DNS socket failed", { error: errorMessage(error) }),
    });
    this.#udp.push(udp);
    this.#tcp.push(this.acceptTcp(listenTcp(this.#pod.netnsFd, options)));
  }

  #serveTcp(socket: net.Socket): void {
    socket.on("error", () => undefined);
    if (this.#tcpClients >= TCP_CLIENTS_MAX) return void socket.destroy();
    this.#tcpClients++;
    socket.on("close", () => this.#tcpClients--);
    socket.setTimeout(TCP_IDLE_TIMEOUT_MS, () => socket.destroy());
    const messages = new TcpMessages((query) => {
      void this.#answer(query, "tcp").then((answer) => answer && socket.write(frameTcp(answer)));
    });
    socket.on("data", (chunk: Buffer) => messages.push(chunk));
  }

  /** The answer to one query, ours or an upstream's; undefined for what is no DNS message. */
  async #answer(query: Buffer, transport: Transport): Promise<Buffer | undefined> {
    const parsed = parseQuery(query);
    if (parsed === undefined) return undefined;
    if (!parsed.ok) return encodeError(parsed.id, parsed.rcode);
    const { question } = parsed;
    try {
      const own = await this.#resolve(question);
      if (own !== undefined) return encodeAnswer(question, own, transport);
    } catch {
      return encodeError(question.id, Rcode.SERVFAIL);
    }
    return (
      (await this.#forwarder.forward(query, transport)) ?? encodeError(question.id, Rcode.SERVFAIL)
    );
  }

  async #resolve(question: Question): Promise<ReturnType<typeof resolveLocally>> {
    if (question.type !== "A" && question.type !== "AAAA") return undefined;
    const client = await identify(this.#context, this.#pod);
    return resolveLocally(this.#context.state, {
      name: question.name,
      family: question.type === "A" ? 4 : 6,
      client,
      clusterDomain: this.#context.config.clusterDomain,
      random: this.#context.random,
    });
  }
}

/** ::1 can be bound unless the pod switched IPv6 off on its loopback. */
function podHasIpv6({ netnsFd }: Pod): boolean {
  return inNetns(
    netnsFd,
    () => existsSync(DISABLE_IPV6) && readFileSync(DISABLE_IPV6, "utf8").trim() === "0",
  );
}
