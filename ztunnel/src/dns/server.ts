// The sockets of a pod's DNS proxy: UDP and TCP on the pod's loopback. What is said on them is the
// answerer's.

import { existsSync, readFileSync } from "node:fs";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { acceptBytes, type ByteListener } from "@ambit/common/sys/accept-bytes.ts";
import { inNetns } from "@ambit/common/sys/netns.ts";
import { listenTcp } from "@ambit/common/sys/sockets.ts";
import type { Pod, ProxyContext } from "../proxy/context.ts";
import { Answerer } from "./answerer.ts";
import { Forwarder } from "./forward.ts";
import { readResolvConf } from "./resolv-conf.ts";
import { TcpClients } from "./tcp-clients.ts";
import { UdpEndpoint } from "./udp-endpoint.ts";

const DISABLE_IPV6 = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

/** Where upstream resolvers listen. */
const DNS_SERVER_PORT = 53;

/** What comes from ztunnel's own surroundings unless a test says otherwise. */
export interface DnsSurroundings {
  readonly upstreams: readonly SocketAddress[];
  readonly searchDomains: readonly string[];
}

export class DnsProxy {
  readonly #context: ProxyContext;
  readonly #pod: Pod;
  readonly #answerer: Answerer;
  readonly #udp: UdpEndpoint[] = [];
  readonly #tcp: ByteListener[] = [];
  readonly #tcpClients: TcpClients;

  /** Binds UDP and TCP; throws SystemError, with nothing left open, when a port is taken. */
  constructor(context: ProxyContext, pod: Pod, surroundings = systemSurroundings()) {
    this.#context = context;
    this.#pod = pod;
    const { dnsProxyAddress, packetMark, ipv6 } = context.config;
    const forwarder = new Forwarder({
      netnsFd: pod.netnsFd,
      mark: packetMark,
      clock: context.clock,
      upstreams: surroundings.upstreams,
      forced: pod.drain.forced,
    });
    this.#tcpClients = new TcpClients(
      (query) => this.#answerer.answer(query, "tcp"),
      context.clock,
    );
    const ownSearchDomains = surroundings.searchDomains;
    this.#answerer = new Answerer({ context, pod, forwarder, ownSearchDomains });
    const { ip, port } = dnsProxyAddress;
    const loopbacks = ["127.0.0.1", ...(ipv6 && podHasIpv6(pod) ? ["::1"] : [])] as Ip[];
    try {
      for (const own of ip === undefined ? loopbacks : [ip]) this.#bind(own, port);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Takes no new queries; resolves when those that have come are answered and all is closed. */
  async drain(): Promise<void> {
    for (const server of this.#tcp.splice(0)) server.close();
    const udp = this.#udp.splice(0).map((endpoint) => endpoint.drain());
    await Promise.all([...udp, this.#tcpClients.drain()]);
  }

  /** Closes at once. */
  close(): void {
    for (const server of this.#tcp.splice(0)) server.close();
    for (const endpoint of this.#udp.splice(0)) endpoint.close();
    this.#tcpClients.close();
  }

  /** Serves what comes to one more listening descriptor, too. Takes it over. */
  acceptTcp(fd: number): ByteListener {
    return acceptBytes(fd, (socket) => this.#tcpClients.serve(socket));
  }

  #bind(ip: Ip, port: number): void {
    const { packetMark, portReuse } = this.#context.config;
    const options = {
      address: { ip, port },
      reusePort: portReuse,
      ...(packetMark !== undefined && { mark: packetMark }),
    };
    const udp = new UdpEndpoint(this.#pod.netnsFd, options, {
      answer: (query) => this.#answerer.answer(query, "udp"),
      onError: (error) =>
        this.#context.log.warn("DNS socket failed", { error: errorMessage(error) }),
    });
    this.#udp.push(udp);
    this.#tcp.push(this.acceptTcp(listenTcp(this.#pod.netnsFd, options)));
  }
}

function systemSurroundings(): DnsSurroundings {
  const { nameservers, searchDomains } = readResolvConf();
  return { upstreams: nameservers.map((ip) => ({ ip, port: DNS_SERVER_PORT })), searchDomains };
}

/** ::1 can be bound unless the pod switched IPv6 off on its loopback. */
function podHasIpv6({ netnsFd }: Pod): boolean {
  return inNetns(
    netnsFd,
    () => existsSync(DISABLE_IPV6) && readFileSync(DISABLE_IPV6, "utf8").trim() === "0",
  );
}
