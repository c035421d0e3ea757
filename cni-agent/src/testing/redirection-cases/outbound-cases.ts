// What leaves a pod.

import { once } from "node:events";
import type net from "node:net";
import { expect, it } from "vitest";
import { parseIp } from "@ambit/common/net/ip.ts";
import * as linux from "@ambit/common/sys/constants.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { socketFd } from "@ambit/common/sys/sockets.ts";
import {
  bindTo,
  bindToDevice,
  connectApp,
  connectFd,
  disconnectFd,
  getOption,
  MPTCP,
  openAppSocket,
  setOption,
  udpAt,
  wrap,
} from "../app-socket.ts";
import type { RedirectionHarness } from "../redirection-harness.ts";
import { dial, ip, OUTSIDE, talk, TestServer } from "../test-network.ts";
import { ANY, APP_PORT, FAMILIES, refused } from "./shared.ts";

const TCP_FASTOPEN_CONNECT = 30;
/** Outside the bits that redirection uses. */
const FOREIGN_MARK = 0x70000;

export function outboundCases(get: () => RedirectionHarness): void {
  it.each(FAMILIES)("captures %s with the original destination", async (f) => {
    const { network, install, listen, destinationOf } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const app = connectApp(network.pod, OUTSIDE[f], 80);
    const captured = await ztunnel.next();
    expect(destinationOf(captured)).toEqual({ ip: OUTSIDE[f], port: 80 });
    expect(parseIp(captured.remoteAddress!)).toBe(network.pod[f]);
    await talk(app, captured);
    app.destroy();
  });

  it.each(FAMILIES)("shows an application natural %s addresses", async (f) => {
    const { network, install, listen } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const app = connectApp(network.pod, OUTSIDE[f], 80);
    await ztunnel.next();
    expect([parseIp(app.remoteAddress!), app.remotePort]).toEqual([OUTSIDE[f], 80]);
    expect(parseIp(app.localAddress!)).toBe(network.pod[f]);
    app.destroy();
  });

  const kinds: [string, Parameters<typeof connectApp>[3]][] = [
    ["of an AF_INET6 socket to an IPv4-mapped address", { mapped: true }],
    ["of an MPTCP socket", { protocol: MPTCP }],
    [
      "with TCP Fast Open",
      { prepare: (fd) => setOption(fd, linux.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1) },
    ],
  ];
  it.each(kinds)("captures IPv4 %s", async (_kind, options) => {
    const { network, install, listen, destinationOf } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const app = connectApp(network.pod, OUTSIDE.ip4, 80, options);
    app.write("first");
    const captured = await ztunnel.next();
    expect(destinationOf(captured)).toEqual({ ip: OUTSIDE.ip4, port: 80 });
    await talk(app, captured);
    app.destroy();
  });

  it.each(FAMILIES)("captures %s of a socket bound to the pod's address", async (f) => {
    const { network, install, listen, destinationOf } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const prepare = (fd: number) => bindTo(fd, network.pod[f], 0);
    const app = connectApp(network.pod, OUTSIDE[f], 80, { prepare });
    const captured = await ztunnel.next();
    expect(destinationOf(captured)).toEqual({ ip: OUTSIDE[f], port: 80 });
    await talk(app, captured);
    app.destroy();
  });

  it("tells two destinations apart that are called from one port", async () => {
    const { network, install, listen, destinationOf } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const prepare = (fd: number) => {
      setOption(fd, linux.SOL_SOCKET, linux.SO_REUSEADDR, 1);
      bindTo(fd, network.pod.ip4, 23_456);
    };
    const apps: net.Socket[] = [];
    for (const port of [80, 81]) {
      apps.push(connectApp(network.pod, OUTSIDE.ip4, port, { prepare }));
      const captured = await ztunnel.next();
      expect(destinationOf(captured)).toEqual({ ip: OUTSIDE.ip4, port });
      await talk(apps.at(-1)!, captured);
    }
    for (const app of apps) app.destroy();
  });

  it("lets nothing out of a socket that is bound to a device", async () => {
    const { network, install, listen } = get();
    await install();
    await using _ztunnel = await listen("OUTBOUND");
    await using outside = await TestServer.start(network.node, ANY, 80);
    const app = connectApp(network.pod, OUTSIDE.ip4, 80, { prepare: bindToDevice });
    const unbound = connectApp(network.node, OUTSIDE.ip4, 80);
    await outside.next();
    expect(outside.connectionCount).toBe(1);
    app.destroy();
    unbound.destroy();
  });

  it("captures a socket that has a mark, and leaves it the bits that are not ours", async () => {
    const { network, install, listen } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const prepare = (fd: number) =>
      setOption(fd, linux.SOL_SOCKET, linux.SO_MARK, FOREIGN_MARK | 1);
    const app = connectApp(network.pod, OUTSIDE.ip4, 80, { prepare });
    await talk(app, await ztunnel.next());
    const mark = getOption(socketFd(app), linux.SOL_SOCKET, linux.SO_MARK);
    expect(mark & FOREIGN_MARK).toBe(FOREIGN_MARK);
    app.destroy();
  });

  it("captures again what connects again, after a failure and elsewhere", async () => {
    const { network, install, listen, destinationOf, refusal } = get();
    await install();
    expect(await refused(network.pod, OUTSIDE.ip4, 80)).toBe(refusal);
    await using ztunnel = await listen("OUTBOUND");
    const fd = openAppSocket(network.pod, OUTSIDE.ip4);
    for (const port of [80, 81]) {
      connectFd(fd, OUTSIDE.ip4, port);
      const captured = await ztunnel.next();
      expect(destinationOf(captured)).toEqual({ ip: OUTSIDE.ip4, port });
      captured.destroy();
      disconnectFd(fd);
    }
    closeFd(fd);
  });

  it("captures nothing within the pod that the same socket calls afterwards", async () => {
    const { network, install, listen } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    await using server = await TestServer.start(network.pod, network.pod.ip4, APP_PORT);
    const fd = openAppSocket(network.pod, OUTSIDE.ip4);
    connectFd(fd, OUTSIDE.ip4, 80);
    (await ztunnel.next()).destroy();
    disconnectFd(fd);
    connectFd(fd, network.pod.ip4, APP_PORT);
    const app = wrap(fd);
    await talk(app, await server.next());
    app.destroy();
  });

  it.each(FAMILIES)("leaves a pod's %s calls to itself alone", async (f) => {
    const { network, install, listen } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    await using plaintext = await listen("PLAINTEXT");
    await using server = await TestServer.start(network.pod, network.pod[f], APP_PORT);
    const app = connectApp(network.pod, network.pod[f], APP_PORT);
    await talk(app, await server.next());
    expect(ztunnel.connectionCount + plaintext.connectionCount).toBe(0);
    app.destroy();
  });

  it.each([["127.0.0.1"], ["127.9.9.9"], ["::1"]])("leaves calls to %s alone", async (address) => {
    const { network, install } = get();
    await install();
    await using server = await TestServer.start(network.pod, ip(address), APP_PORT);
    const app = connectApp(network.pod, ip(address), APP_PORT);
    await talk(app, await server.next());
    app.destroy();
  });

  it.each(FAMILIES)("lets ztunnel's own %s connections out", async (f) => {
    const { network, install, listen, asProxy, mark } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    await using outside = await TestServer.start(network.node, ANY, 80);
    using _ = asProxy();
    const upstream = await dial(network.pod, OUTSIDE[f], 80, { mark });
    await talk(upstream, await outside.next());
    expect(ztunnel.connectionCount).toBe(0);
    upstream.destroy();
  });

  it.each(FAMILIES)("refuses %s at once, and leaks nothing, without ztunnel", async (f) => {
    const { network, install, refusal } = get();
    await install();
    await using outside = await TestServer.start(network.node, ANY, 80);
    const startMs = performance.now();
    expect(await refused(network.pod, OUTSIDE[f], 80)).toBe(refusal);
    expect(performance.now() - startMs).toBeLessThan(500);
    expect(outside.connectionCount).toBe(0);
  });

  it("does not touch UDP other than DNS", async () => {
    const { network, install } = get();
    await install();
    const server = await udpAt(network.node, OUTSIDE.ip4, 443);
    const app = await udpAt(network.pod, ip("0.0.0.0"), 0);
    app.send("datagram", 443, OUTSIDE.ip4);
    const [bytes, from] = (await once(server, "message")) as [Buffer, { address: string }];
    expect([bytes.toString(), from.address]).toEqual(["datagram", network.pod.ip4]);
    app.close();
    server.close();
  });

  it("leaves queries for names to the pod from the moment that it is released", async () => {
    const { network, install, backend } = get();
    await install();
    await backend.release(network.pod.netns);
    const server = await udpAt(network.node, OUTSIDE.ip4, 53);
    const app = await udpAt(network.pod, ip("0.0.0.0"), 0);
    app.send("query", 53, OUTSIDE.ip4);
    const [query] = (await once(server, "message")) as [Buffer];
    expect(query.toString()).toBe("query");
    app.close();
    server.close();
  });

  it("takes many connections at once, each with its own destination", async () => {
    const { network, install, listen, destinationOf } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const ports = Array.from({ length: 300 }, (_, index) => 1000 + index);
    const apps = ports.map((port) => connectApp(network.pod, OUTSIDE.ip4, port));
    const seen = new Set<number>();
    for (const _ of ports) seen.add(destinationOf(await ztunnel.next())!.port);
    expect([...seen].sort((a, b) => a - b)).toEqual(ports);
    for (const app of apps) app.destroy();
  });
}
