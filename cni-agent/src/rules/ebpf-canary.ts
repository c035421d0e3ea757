// The proof that eBPF redirection works on this node: in a namespace made for it, a connection of each
// family to somewhere far away must arrive at a listener that the map names, with its destination kept.

import net from "node:net";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { type Ip, parseIp } from "@ambit/common/net/ip.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { createNetns, type NetnsHandle } from "@ambit/common/sys/netns.ts";
import { connectTcp, listenTcp } from "@ambit/common/sys/sockets.ts";
import type { EbpfBackend } from "./ebpf-backend.ts";
import type { EbpfNode } from "./ebpf-node.ts";
import { runChecked } from "./run-command.ts";

/** Nothing leaves the namespace: what takes longer does not come. */
const TIMEOUT_MS = 2_000;

/** Addresses for documentation; the namespace is nobody else's. */
const FAMILIES = [
  { own: "192.0.2.1/32", target: { ip: "198.51.100.7" as Ip, port: 7_001 } },
  { own: "2001:db8::1/128", target: { ip: "2001:db8:ffff::7" as Ip, port: 7_002 } },
] as const;

const ANY = { ip: "::" as Ip, port: 0 };
const ANY_IPV4 = { ip: "0.0.0.0" as Ip, port: 0 };

/** Rejects with an Error that says what came of the connection. Leaves nothing behind. */
export async function proveSteering(node: EbpfNode, backend: EbpfBackend): Promise<void> {
  const ipv6 = existsSync("/proc/sys/net/ipv6");
  const families = ipv6 ? FAMILIES : FAMILIES.slice(0, 1);
  using netns = createNetns();
  const setUp = ["link set lo up", ...families.map(({ own }) => `addr add ${own} dev lo nodad`)];
  await runChecked(netns, ["ip", "-batch", "-"], `${setUp.join("\n")}\n`);
  const redirection = { dnsCapture: false, inboundCapture: true, virtualInterfaces: [], ipv6 };
  await backend.install(netns, redirection);
  const listener = await listen(node, netns, ipv6);
  try {
    for (const { target } of families) await prove(listener, netns, target);
  } finally {
    listener.close();
    await backend.remove(netns);
  }
}

async function listen(node: EbpfNode, netns: NetnsHandle, ipv6: boolean): Promise<net.Server> {
  const { steering } = node;
  // A lease that a ztunnel let run out is not what is to be found out here.
  if (steering.leaseExpired) steering.renewLease(TIMEOUT_MS);
  const fd = listenTcp(netns.fd, { address: ipv6 ? ANY : ANY_IPV4, transparent: "required" });
  steering.setListener(steering.slotOf(cookieOfNetns(netns.fd))!, "OUTBOUND", fd);
  const server = net.createServer();
  server.listen({ fd });
  await once(server, "listening");
  return server;
}

async function prove(server: net.Server, netns: NetnsHandle, target: SocketAddress): Promise<void> {
  const accepted = once(server, "connection", { signal: AbortSignal.timeout(TIMEOUT_MS) });
  const connected = connectTcp(netns.fd, { destination: target, timeoutMs: TIMEOUT_MS });
  const where = formatSocketAddress(target);
  try {
    const [[socket], { socket: client }] = (await Promise.all([accepted, connected])) as [
      [net.Socket],
      Awaited<typeof connected>,
    ];
    const { localAddress = "", localPort = 0 } = socket;
    client.destroy();
    socket.destroy();
    if (parseIp(localAddress) === target.ip && localPort === target.port) return;
    throw new Error(`it arrived as one to ${localAddress} port ${localPort}`);
  } catch (error) {
    await connected.then(({ socket }) => socket.destroy()).catch(() => undefined);
    throw new Error(`a test connection to ${where} did not arrive: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}
