// Questions to DNS servers.

import { Resolver } from "node:dns/promises";
import { once } from "node:events";
import { expect, it } from "vitest";
import { parseIp } from "@ambit/common/net/ip.ts";
import { inNetns } from "@ambit/common/sys/netns.ts";
import { connectApp, udpAt } from "../app-socket.ts";
import type { RedirectionHarness } from "../redirection-harness.ts";
import { ip, OUTSIDE, talk } from "../test-network.ts";
import { ANY } from "./shared.ts";

export function dnsCases(get: () => RedirectionHarness): void {
  /** ztunnel's DNS proxy: answers with the query. */
  const proxyAt = async (loopback: string) => {
    const { network, mark } = get();
    const proxy = await udpAt(network.pod, ip(loopback), 15_053, mark);
    proxy.on("message", (query, from) =>
      proxy.send(`re: ${query.toString()}`, from.port, from.address),
    );
    return proxy;
  };

  it.each([
    ["ip4", "127.0.0.1", "0.0.0.0"],
    ["ip6", "::1", "::"],
  ] as const)("answers %s queries as if by the resolver", async (f, loopback, any) => {
    const { network, install } = get();
    await install();
    const proxy = await proxyAt(loopback);
    const app = await udpAt(network.pod, ip(any), 0);
    app.send("query", 53, OUTSIDE[f]);
    const [answer, from] = (await once(app, "message")) as [
      Buffer,
      { address: string; port: number },
    ];
    expect([answer.toString(), parseIp(from.address), from.port]).toEqual([
      "re: query",
      OUTSIDE[f],
      53,
    ]);
    proxy.close();
    app.close();
  });

  it.each([
    ["ip4", "127.0.0.1", "0.0.0.0"],
    ["ip6", "::1", "::"],
  ] as const)(
    "answers connected %s sockets, which see their resolver",
    async (f, loopback, any) => {
      const { network, install } = get();
      await install();
      const proxy = await proxyAt(loopback);
      const app = await udpAt(network.pod, ip(any), 0);
      const connected = once(app, "connect");
      app.connect(53, OUTSIDE[f]);
      await connected;
      expect(parseIp(app.remoteAddress().address)).toBe(OUTSIDE[f]);
      app.send("query");
      const [answer] = (await once(app, "message")) as [Buffer];
      expect(answer.toString()).toBe("re: query");
      proxy.close();
      app.close();
    },
  );

  it("answers an AF_INET6 socket that asks an IPv4 resolver", async () => {
    const { network, install } = get();
    await install();
    const proxy = await proxyAt("127.0.0.1");
    const app = await udpAt(network.pod, ANY, 0);
    app.send("query", 53, `::ffff:${OUTSIDE.ip4}`);
    const [answer, from] = (await once(app, "message")) as [Buffer, { address: string }];
    expect([answer.toString(), parseIp(from.address)]).toEqual(["re: query", OUTSIDE.ip4]);
    proxy.close();
    app.close();
  });

  it("serves one socket that asks two resolvers in turn", async () => {
    const { network, install } = get();
    await install();
    const proxy = await proxyAt("127.0.0.1");
    const app = await udpAt(network.pod, ip("0.0.0.0"), 0);
    for (const resolver of [OUTSIDE.ip4, network.node.ip4, OUTSIDE.ip4]) {
      app.send("query", 53, resolver);
      const [, from] = (await once(app, "message")) as [Buffer, { address: string }];
      expect(from.address).toBe(resolver);
    }
    proxy.close();
    app.close();
  });

  it("carries an answer of 4096 bytes", async () => {
    const { network, install, mark } = get();
    await install();
    const proxy = await udpAt(network.pod, ip("127.0.0.1"), 15_053, mark);
    proxy.on("message", (_query, from) => proxy.send(Buffer.alloc(4096), from.port, from.address));
    const app = await udpAt(network.pod, ip("0.0.0.0"), 0);
    app.send("query", 53, OUTSIDE.ip4);
    const [answer] = (await once(app, "message")) as [Buffer];
    expect(answer.length).toBe(4096);
    proxy.close();
    app.close();
  });

  it("answers c-ares, Node's own resolver", async () => {
    const { network, install, mark } = get();
    await install();
    const proxy = await udpAt(network.pod, ip("127.0.0.1"), 15_053, mark);
    proxy.on("message", (query, from) => proxy.send(answerTo(query), from.port, from.address));
    const resolver = new Resolver();
    resolver.setServers([OUTSIDE.ip4]);
    const found = inNetns(network.pod.netns.fd, () => resolver.resolve4("far.shop"));
    expect(await found).toEqual(["10.0.0.7"]);
    proxy.close();
  });

  it("captures DNS over TCP apart from other connections", async () => {
    const { network, install, listen } = get();
    await install();
    await using outbound = await listen("OUTBOUND");
    await using dns = await listen("DNS");
    const app = connectApp(network.pod, OUTSIDE.ip4, 53);
    await talk(app, await dns.next());
    expect(outbound.connectionCount).toBe(0);
    app.destroy();
  });

  it("lets ztunnel's own queries out", async () => {
    const { network, install, asProxy, mark } = get();
    await install();
    const server = await udpAt(network.node, OUTSIDE.ip4, 53);
    using _ = asProxy();
    const upstream = await udpAt(network.pod, ip("0.0.0.0"), 0, mark);
    upstream.send("query", 53, OUTSIDE.ip4);
    const [query] = (await once(server, "message")) as [Buffer];
    expect(query.toString()).toBe("query");
    server.close();
    upstream.close();
  });

  it("leaves DNS alone when it is switched off", async () => {
    const { network, install } = get();
    await install({ dnsCapture: false });
    const server = await udpAt(network.node, OUTSIDE.ip4, 53);
    const app = await udpAt(network.pod, ip("0.0.0.0"), 0);
    app.send("query", 53, OUTSIDE.ip4);
    const [query] = (await once(server, "message")) as [Buffer];
    expect(query.toString()).toBe("query");
    server.close();
    app.close();
  });
}

const DNS_HEADER_BYTES = 12;

/** The question again, with the address 10.0.0.7 (RFC 1035); without what follows it (EDNS). */
function answerTo(query: Buffer): Buffer {
  const questionEnd = query.indexOf(0, DNS_HEADER_BYTES) + 5;
  const question = Buffer.from(query.subarray(0, questionEnd));
  question.writeUInt16BE(0x8180, 2);
  for (const [count, offset] of [
    [1, 6],
    [0, 8],
    [0, 10],
  ] as const) {
    question.writeUInt16BE(count, offset);
  }
  // The name again, by a pointer; A, IN, 60 seconds, four bytes.
  return Buffer.concat([question, Buffer.from("c00c000100010000003c00040a000007", "hex")]);
}
