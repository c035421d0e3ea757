// Sockets that connect, accept and send in other ways than most do.

import { once } from "node:events";
import type net from "node:net";
import { expect, it } from "vitest";
import * as linux from "@ambit/common/sys/constants.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { inNetns } from "@ambit/common/sys/netns.ts";
import {
  type AppSocketOptions,
  bindToDevice,
  connectApp,
  connectFd,
  listenApp,
  MPTCP,
  openAppSocket,
  setOption,
  wrap,
} from "../app-socket.ts";
import { acceptByRing, connectByRing } from "../io-uring.ts";
import { MSG_FASTOPEN, sendTo } from "../raw-packets.ts";
import type { RedirectionHarness } from "../redirection-harness.ts";
import { dial, ip, OUTSIDE, talk, TestServer } from "../test-network.ts";
import { ANY, APP_PORT } from "./shared.ts";

const TCP_FASTOPEN = 23;
/** Fast Open for clients, for servers, and without a cookie. */
const FASTOPEN_ALL = 0x1 | 0x2 | 0x4 | 0x200;
const hello = Buffer.from("hello");

export function socketCases(get: () => RedirectionHarness): void {
  /** Opens a socket in the pod and has `action` connect it. */
  const connected = async (
    options: AppSocketOptions,
    action: (fd: number) => unknown,
  ): Promise<net.Socket> => {
    const fd = openAppSocket(get().network.pod, OUTSIDE.ip4, options);
    try {
      await action(fd);
      return wrap(fd);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  };
  const to = { ip: OUTSIDE.ip4, port: 80 };

  it.each<[string, AppSocketOptions, (fd: number) => unknown]>([
    ["data in the SYN (MSG_FASTOPEN)", {}, (fd) => sendTo(fd, to, hello, MSG_FASTOPEN)],
    ["such data of MPTCP's", { protocol: MPTCP }, (fd) => sendTo(fd, to, hello, MSG_FASTOPEN)],
    ["io_uring, by a thread of the kernel's", {}, (fd) => connectByRing(fd, to)],
    [
      "a process of another pod, to which the socket was handed",
      {},
      (fd) => inNetns(get().network.other.netns.fd, () => connectFd(fd, to.ip, to.port)),
    ],
  ])("captures what is connected by %s", async (_way, options, connect) => {
    const { install, listen, destinationOf, network } = get();
    network.sh(`ip netns exec $POD sysctl -qw net.ipv4.tcp_fastopen=${FASTOPEN_ALL}`);
    await install();
    await using ztunnel = await listen("OUTBOUND");
    await using outside = await TestServer.start(network.node, ANY, to.port);
    const app = await connected(options, connect);
    const captured = await ztunnel.next();
    expect(destinationOf(captured)).toEqual(to);
    await talk(app, captured);
    expect(outside.connectionCount).toBe(0);
    app.destroy();
  });

  it("leaves a socket to its own pod that an enrolled one was handed", async () => {
    const { install, listen, network } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    await using outside = await TestServer.start(network.node, ANY, to.port);
    const fd = openAppSocket(network.other, to.ip);
    inNetns(network.pod.netns.fd, () => connectFd(fd, to.ip, to.port));
    const app = wrap(fd);
    await talk(app, await outside.next());
    expect(ztunnel.connectionCount).toBe(0);
    app.destroy();
  });

  it("captures an MPTCP socket's IPv6 calls", async () => {
    const { install, listen, destinationOf, network } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const app = connectApp(network.pod, OUTSIDE.ip6, 80, { protocol: MPTCP });
    const captured = await ztunnel.next();
    expect(destinationOf(captured)).toEqual({ ip: OUTSIDE.ip6, port: 80 });
    await talk(app, captured);
    app.destroy();
  });

  it("lets nothing out of a socket that is bound to the loopback device", async () => {
    const { install, listen, network } = get();
    await install();
    await using _ztunnel = await listen("OUTBOUND");
    await using outside = await TestServer.start(network.node, ANY, to.port);
    const prepare = (fd: number) => bindToDevice(fd, "lo");
    const app = connectApp(network.pod, to.ip, to.port, { prepare });
    const unbound = connectApp(network.node, to.ip, to.port);
    await outside.next();
    expect(outside.connectionCount).toBe(1);
    app.destroy();
    unbound.destroy();
  });

  it("keeps the application's socket within the pod that is bound to the loopback device", async () => {
    const { install, network } = get();
    await install();
    await using server = await TestServer.start(network.pod, ip("127.0.0.1"), APP_PORT);
    const prepare = (fd: number) => bindToDevice(fd, "lo");
    const app = connectApp(network.pod, ip("127.0.0.1"), APP_PORT, { prepare });
    await talk(app, await server.next());
    app.destroy();
  });

  it("captures what comes with data in the SYN, to a server that would take it", async () => {
    const { install, listen, network } = get();
    const sysctl = `sysctl -qw net.ipv4.tcp_fastopen=${FASTOPEN_ALL}`;
    network.sh(`for n in $POD $OTHER; do ip netns exec $n ${sysctl}; done`);
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    setOption(server.fd, linux.IPPROTO_TCP, TCP_FASTOPEN, 16);
    await install();
    await using ztunnel = await listen("PLAINTEXT");
    const fd = openAppSocket(network.other, network.pod.ip4);
    sendTo(fd, { ip: network.pod.ip4, port: APP_PORT }, hello, MSG_FASTOPEN);
    const client = wrap(fd);
    const captured = await ztunnel.next();
    expect(String((await once(captured, "data"))[0])).toBe("hello");
    expect(server.connectionCount).toBe(0);
    client.destroy();
  });

  const deliver = async (accepting: Promise<net.Socket>) => {
    const { network, asProxy, mark } = get();
    using _ = asProxy();
    const spoof = network.other.ip4;
    const upstream = await dial(network.pod, network.pod.ip4, APP_PORT, { mark, spoof });
    const accepted = await accepting;
    await talk(upstream, accepted);
    for (const socket of [upstream, accepted]) socket.destroy();
  };

  it("delivers to an application that listens for MPTCP", async () => {
    const { install, network } = get();
    await install();
    await using server = await TestServer.adopt(
      listenApp(network.pod, network.pod.ip4, APP_PORT, MPTCP),
    );
    await deliver(server.next());
  });

  it("delivers to an application that accepts by io_uring", async () => {
    const { install, network } = get();
    await install();
    const listener = listenApp(network.pod, network.pod.ip4, APP_PORT);
    await deliver(acceptByRing(listener).then(wrap));
    closeFd(listener);
  });
}
