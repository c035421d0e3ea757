// Two enrolled pods of one node for tests of the direct path: `pod` calls, `other` is called. The test is
// their ztunnel: what it takes is in `outbound` (of the caller) and `plaintext` (of the called).

import type net from "node:net";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { DirectBackend, DirectSource } from "@ambit/common/sys/bpf-direct.ts";
import type { CounterName } from "@ambit/common/sys/bpf-steering.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { PROXY_MARK } from "../rules/wire.ts";
import { connectApp } from "./app-socket.ts";
import { ALL, type EbpfHarness, openShortcut } from "./redirection-harness.ts";
import { ip, type TestPlace, TestServer } from "./test-network.ts";

export const APP_PORT = 8080;
const ANY = ip("::");

export class DirectLab implements AsyncDisposable {
  readonly #harness: EbpfHarness;
  readonly #servers: TestServer[] = [];
  readonly source: DirectSource;
  readonly slot: number;
  readonly outbound: TestServer;
  readonly plaintext: TestServer;
  readonly app: TestServer;

  private constructor(harness: EbpfHarness, servers: [TestServer, TestServer, TestServer]) {
    const { pod, other } = harness.network;
    const { steering } = harness.node;
    this.#harness = harness;
    this.#servers = servers;
    [this.outbound, this.plaintext, this.app] = servers;
    const netns = cookieOfNetns(pod.netns.fd);
    this.source = { netns, slot: steering.slotOf(netns)! };
    this.slot = steering.slotOf(cookieOfNetns(other.netns.fd))!;
    steering.setListener(this.source.slot, "OUTBOUND", this.outbound.fd);
    steering.setListener(this.slot, "PLAINTEXT", this.plaintext.fd);
  }

  static async start(harness: EbpfHarness): Promise<DirectLab> {
    const { pod, other } = harness.network;
    for (const { netns } of [pod, other]) {
      await harness.backend.install(netns, ALL);
      await openShortcut(harness, netns);
    }
    const outbound = await TestServer.start(pod, ANY, 0, PROXY_MARK);
    const plaintext = await TestServer.start(other, ANY, 0, PROXY_MARK);
    const app = await TestServer.start(other, ANY, APP_PORT);
    return new DirectLab(harness, [outbound, plaintext, app]);
  }

  /** Where the application is. */
  at(family: 4 | 6 = 4, port = APP_PORT): SocketAddress {
    const { ip4, ip6 } = this.#harness.network.other;
    return { ip: family === 4 ? ip4 : ip6, port };
  }

  /** ztunnel's verdict: the caller may reach the application by this address. */
  allow(called: SocketAddress, to: SocketAddress = called): void {
    const { direct } = this.#harness.node.steering;
    direct.allow(this.source, called, [{ to, ...this.current(), weight: 1 }]);
  }

  /** The called pod's slot, as it is now. */
  current(): Pick<DirectBackend, "slot" | "generation"> {
    const { slot } = this;
    return { slot, generation: this.#harness.node.steering.direct.generation(slot) };
  }

  /** As an application of the calling pod. */
  call({ ip, port }: SocketAddress, options: Parameters<typeof connectApp>[3] = {}): net.Socket {
    return connectApp(this.caller, ip, port, options);
  }

  get caller(): TestPlace {
    return this.#harness.network.pod;
  }

  counted(name: CounterName): number {
    return this.#harness.node.steering.counters().get(name)!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { backend, network, node } = this.#harness;
    const { direct } = node.steering;
    direct.withdrawAll();
    for (const server of this.#servers) await server[Symbol.asyncDispose]();
    for (const { netns } of [network.pod, network.other]) await backend.remove(netns);
    for (const flow of direct.flows()) direct.forget(flow);
  }
}
