// Addresses and ports that are not like others.

import { once } from "node:events";
import { expect, it } from "vitest";
import { parseIp } from "@ambit/common/net/ip.ts";
import { connectApp, udpAt } from "../app-socket.ts";
import type { RedirectionHarness } from "../redirection-harness.ts";
import { ip, OUTSIDE, talk, TestServer } from "../test-network.ts";
import { APP_PORT, refused } from "./shared.ts";

const PORTS = 10;
const CONNECTIONS = 40 * PORTS;

export function destinationCases(get: () => RedirectionHarness): void {
  it.each([
    ["the cloud's metadata service", "169.254.169.254", 80],
    ["a service's address, to which nothing else leads", "10.96.0.1", 443],
    ["a service's IPv6 address", "fd96::1", 443],
    ["the node", "10.77.1.1", 10_250],
    ["another pod of the node", "10.77.2.2", 8080],
    ["a port that ztunnel has in other pods", "10.77.2.2", 15_008],
    ["the port of redirected connections", "10.78.0.9", 15_001],
  ])("captures calls to %s", async (_what, address, port) => {
    const { network, install, listen, destinationOf } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const app = connectApp(network.pod, ip(address), port);
    const captured = await ztunnel.next();
    expect(destinationOf(captured)).toEqual({ ip: ip(address), port });
    await talk(app, captured);
    app.destroy();
  });

  it("captures what would leave by a second interface, from an address of the pod's", async () => {
    const { network, install, listen, destinationOf } = get();
    network.sh(`
      ip -n $POD link add net1 type veth peer name net2
      ip -n $POD link set net1 up; ip -n $POD link set net2 up
      ip -n $POD addr add 10.81.0.2/24 dev net1`);
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const app = connectApp(network.pod, ip("10.81.0.9"), 80);
    const captured = await ztunnel.next();
    expect(destinationOf(captured)).toEqual({ ip: ip("10.81.0.9"), port: 80 });
    // Translated, it bears the interface's own; by eBPF the pod's first.
    expect([ip("10.81.0.2"), network.pod.ip4]).toContain(parseIp(captured.remoteAddress!));
    await talk(app, captured);
    app.destroy();
    network.sh("ip -n $POD link del net1");
  });

  it("leaves an application on the loopback address to its own pod", async () => {
    const { network, install, listen } = get();
    await using server = await TestServer.start(network.pod, ip("127.0.0.1"), APP_PORT);
    await install();
    await using ztunnel = await listen("PLAINTEXT");
    const client = connectApp(network.other, network.pod.ip4, APP_PORT);
    await talk(client, await ztunnel.next());
    expect(server.connectionCount).toBe(0);
    client.destroy();
  });

  it.each([
    ["multicast", "224.0.0.251"],
    ["broadcast", "10.77.1.255"],
  ])("leaves %s datagrams alone", async (_what, group) => {
    const { network, install } = get();
    await install();
    const server = await udpAt(network.node, ip("0.0.0.0"), 5353);
    if (group.startsWith("224")) server.addMembership(group, network.node.ip4);
    const app = await udpAt(network.pod, ip("0.0.0.0"), 0);
    app.setBroadcast(true);
    app.send("who", 5353, group);
    const [bytes, from] = (await once(server, "message")) as [Buffer, { address: string }];
    expect([bytes.toString(), from.address]).toEqual(["who", network.pod.ip4]);
    app.close();
    server.close();
  });

  it("refuses TCP to a multicast address as without a mesh", async () => {
    const { network, install, listen } = get();
    const before = await refused(network.pod, ip("224.0.0.251"), 80);
    await install();
    await using ztunnel = await listen("OUTBOUND");
    expect(await refused(network.pod, ip("224.0.0.251"), 80)).toBe(before);
    expect(ztunnel.connectionCount).toBe(0);
  });

  it("takes more connections than the pod has local ports", async () => {
    const { network, install, listen, destinationOf } = get();
    const sysctl = "ip netns exec $POD sysctl -qw net.ipv4.ip_local_port_range=";
    network.sh(`${sysctl}"40000 ${40_000 + PORTS - 1}"`);
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const ports = Array.from({ length: CONNECTIONS }, (_, index) => 1000 + index);
    const apps = ports.map((port) => connectApp(network.pod, OUTSIDE.ip4, port));
    expect(new Set(apps.map((app) => app.localPort)).size).toBeLessThanOrEqual(PORTS);
    const seen = new Set<number>();
    for (const _ of ports) seen.add(destinationOf(await ztunnel.next())!.port);
    expect(seen.size).toBe(CONNECTIONS);
    for (const app of apps) app.destroy();
    network.sh(`${sysctl}"32768 60999"`);
  });
}
