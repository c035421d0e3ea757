// What comes to a pod.

import { expect, it } from "vitest";
import { parseIp } from "@ambit/common/net/ip.ts";
import { PROBE_IPV4, PROBE_IPV6 } from "../../rules/wire.ts";
import { connectApp } from "../app-socket.ts";
import type { RedirectionHarness } from "../redirection-harness.ts";
import { dial, ip, OUTSIDE, talk, TestServer } from "../test-network.ts";
import { ANY, APP_PORT, FAMILIES, refused } from "./shared.ts";

export function inboundCases(get: () => RedirectionHarness): void {
  it.each(FAMILIES)("gives plain %s connections to ztunnel, from their real sender", async (f) => {
    const { network, install, listen, destinationOf } = get();
    await install();
    await using ztunnel = await listen("PLAINTEXT");
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    const client = connectApp(network.other, network.pod[f], APP_PORT);
    const captured = await ztunnel.next();
    expect(destinationOf(captured)).toEqual({ ip: network.pod[f], port: APP_PORT });
    expect(parseIp(captured.remoteAddress!)).toBe(network.other[f]);
    await talk(client, captured);
    expect(server.connectionCount).toBe(0);
    client.destroy();
  });

  it.each(FAMILIES)("gives %s tunnels to the tunnel listener", async (f) => {
    const { network, install, listen, destinationOf } = get();
    await install();
    await using ztunnel = await listen("HBONE");
    const client = connectApp(network.other, network.pod[f], 15_008);
    const accepted = await ztunnel.next();
    expect(destinationOf(accepted)).toEqual({ ip: network.pod[f], port: 15_008 });
    await talk(client, accepted);
    client.destroy();
  });

  it.each([
    ["ip4", "10.99.0.5"],
    ["ip6", "fd99::5"],
  ] as const)("delivers %s to the application from a client's address", async (f, client) => {
    const { network, install, listen, asProxy, mark } = get();
    await install();
    await using plaintext = await listen("PLAINTEXT");
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    using _ = asProxy();
    const spoof = ip(client);
    const upstream = await dial(network.pod, network.pod[f], APP_PORT, { mark, spoof });
    const accepted = await server.next();
    expect(parseIp(accepted.remoteAddress!)).toBe(client);
    await talk(upstream, accepted);
    expect(plaintext.connectionCount).toBe(0);
    upstream.destroy();
  });

  it("tells ztunnel at once that an application does not listen", async () => {
    const { network, install, listen, asProxy, mark } = get();
    await install();
    await using plaintext = await listen("PLAINTEXT");
    using _ = asProxy();
    const upstream = dial(network.pod, network.pod.ip4, APP_PORT, { mark, spoof: ip("10.99.0.5") });
    await expect(upstream).rejects.toMatchObject({ code: "ECONNREFUSED" });
    expect(plaintext.connectionCount).toBe(0);
  });

  it("reaches an application that listens on the pod's address only", async () => {
    const { network, install, asProxy, mark } = get();
    await install();
    await using server = await TestServer.start(network.pod, network.pod.ip4, APP_PORT);
    using _ = asProxy();
    const spoof = network.other.ip4;
    const upstream = await dial(network.pod, network.pod.ip4, APP_PORT, { mark, spoof });
    await talk(upstream, await server.next());
    upstream.destroy();
  });

  it("refuses what comes from outside while ztunnel is away", async () => {
    const { network, install } = get();
    await install();
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    expect(await refused(network.other, network.pod.ip4, APP_PORT)).toBe("ECONNREFUSED");
    expect(server.connectionCount).toBe(0);
  });

  it("leaves inbound alone when it is bypassed, and still captures outbound", async () => {
    const { network, install, listen } = get();
    await install({ inboundCapture: false });
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    await using ztunnel = await listen("OUTBOUND");
    const client = connectApp(network.other, network.pod.ip4, APP_PORT);
    await talk(client, await server.next());
    const app = connectApp(network.pod, OUTSIDE.ip4, 80);
    await talk(app, await ztunnel.next());
    client.destroy();
    app.destroy();
  });

  it.each([
    ["ip4", PROBE_IPV4],
    ["ip6", PROBE_IPV6],
  ] as const)("lets the node's own %s probes reach the application", async (f, source) => {
    const { network, install, backend } = get();
    await install();
    await backend.installHost(new Map([[network.pod[f], { uid: "uid-1" }]]));
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    const probe = connectApp(network.node, network.pod[f], APP_PORT);
    const accepted = await server.next();
    expect(parseIp(accepted.remoteAddress!)).toBe(source);
    await talk(probe, accepted);
    probe.destroy();
  });

  it.each(FAMILIES)("does not take %s connections that the node forwards for probes", async (f) => {
    const { network, install, backend, listen } = get();
    await install();
    await backend.installHost(new Map([[network.pod[f], { uid: "uid-1" }]]));
    await using ztunnel = await listen("PLAINTEXT");
    const client = connectApp(network.other, network.pod[f], APP_PORT);
    expect(parseIp((await ztunnel.next()).remoteAddress!)).toBe(network.other[f]);
    client.destroy();
  });
}
