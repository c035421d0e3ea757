// Coming, going, drifting, being mended.

import { once } from "node:events";
import { expect, it } from "vitest";
import { connectApp } from "../app-socket.ts";
import type { RedirectionHarness } from "../redirection-harness.ts";
import { dial, ip, OUTSIDE, talk, TestServer } from "../test-network.ts";
import { ANY, APP_PORT, FAMILIES } from "./shared.ts";

export function lifeCases(get: () => RedirectionHarness): void {
  const verify = (changes: Parameters<RedirectionHarness["install"]>[0] = {}) => {
    const { backend, network } = get();
    const wanted = { dnsCapture: true, inboundCapture: true, virtualInterfaces: [], ipv6: true };
    return backend.verify(network.pod.netns, { ...wanted, ...changes });
  };

  it("goes from absent to ok and back, any number of times, and leaves nothing", async () => {
    const { install, network, reset } = get();
    expect(await verify()).toBe("absent");
    for (let round = 0; round < 3; round++) {
      await install();
      await install();
      expect(await verify()).toBe("ok");
      await reset();
      await reset();
      expect(await verify()).toBe("absent");
    }
    const rules = "nft list ruleset; iptables-legacy-save; ip6tables-legacy-save";
    expect(network.sh(`ip netns exec $POD sh -c '${rules}'`)).not.toMatch(/istio/i);
    expect(network.sh("ip -n $POD rule; ip -n $POD -6 rule")).not.toContain("fwmark");
    expect(network.sh("ip netns exec $POD sysctl -n net.ipv4.tcp_fwmark_accept")).toBe("0\n");
  });

  it.each([
    ["a missing route", "ip route del local default table 100"],
    ["a missing IPv6 rule", "ip -6 rule del priority 32764"],
  ])("notices and mends %s", async (_name, damage) => {
    const { install, network } = get();
    await install();
    network.sh(`ip netns exec $POD ${damage}`);
    expect(await verify()).toBe("drifted");
    await install();
    expect(await verify()).toBe("ok");
  });

  it("notices that something else is wanted", async () => {
    const { install } = get();
    await install();
    expect(await verify({ dnsCapture: false })).toBe("drifted");
    await install({ dnsCapture: false });
    expect(await verify({ dnsCapture: false })).toBe("ok");
  });

  it("keeps established connections over a repeated installation", async () => {
    const { install, listen, network } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    const app = connectApp(network.pod, OUTSIDE.ip4, 80);
    const captured = await ztunnel.next();
    await install({ dnsCapture: false });
    await talk(app, captured);
    app.destroy();
  });

  it.each(FAMILIES)("leaves %s connections alone that were made before", async (f) => {
    const { install, network } = get();
    await using outside = await TestServer.start(network.node, ANY, 80);
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    const out = connectApp(network.pod, OUTSIDE[f], 80);
    const accepted = await outside.next();
    const client = connectApp(network.other, network.pod[f], APP_PORT);
    const served = await server.next();
    await talk(out, accepted);
    await talk(client, served);
    await install();
    for (let round = 0; round < 3; round++) {
      await talk(out, accepted);
      await talk(accepted, out);
      await talk(served, client);
      await talk(client, served);
    }
    out.destroy();
    client.destroy();
  });

  it("released, keeps what it captured and captures nothing new, until it is removed", async () => {
    const { install, listen, network, backend, asProxy, mark } = get();
    await install();
    await using ztunnel = await listen("OUTBOUND");
    await using outside = await TestServer.start(network.node, ANY, 80);
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    const app = connectApp(network.pod, OUTSIDE.ip4, 80);
    const captured = await ztunnel.next();
    const proxy = asProxy();
    const spoof = ip("10.99.0.5");
    const upstream = await dial(network.pod, network.pod.ip4, APP_PORT, { mark, spoof });
    proxy[Symbol.dispose]();
    const delivered = await server.next();

    await backend.release(network.pod.netns);
    await backend.release(network.pod.netns);
    await talk(app, captured);
    await talk(upstream, delivered);
    const out = connectApp(network.pod, OUTSIDE.ip4, 80);
    const taken = await outside.next();
    await talk(out, taken);
    const client = connectApp(network.other, network.pod.ip4, APP_PORT);
    await talk(client, await server.next());

    await using tunnels = await listen("HBONE");
    const peer = connectApp(network.other, network.pod.ip4, 15_008);
    await talk(peer, await tunnels.next());
    const again = asProxy();
    const late = await dial(network.pod, network.pod.ip4, APP_PORT, { mark, spoof });
    again[Symbol.dispose]();
    await talk(late, await server.next());

    const reset = once(app, "error");
    await backend.remove(network.pod.netns);
    await expect(reset).resolves.toMatchObject([
      { code: expect.stringMatching(/^ECONN(RESET|ABORTED)$/) },
    ]);
    await talk(out, taken);
    for (const socket of [app, out, client, upstream, peer, late]) socket.destroy();
  });

  it("captures again what was released", async () => {
    const { install, listen, network, backend } = get();
    await install();
    await backend.release(network.pod.netns);
    expect(await verify()).toBe("drifted");
    await install();
    expect(await verify()).toBe("ok");
    await using ztunnel = await listen("OUTBOUND");
    const app = connectApp(network.pod, OUTSIDE.ip4, 80);
    await talk(app, await ztunnel.next());
    app.destroy();
  });

  it("tells those who watch that somebody changed the pod's routes", async () => {
    const { install, network, backend } = get();
    await install();
    const { promise, resolve } = Promise.withResolvers<void>();
    const watch = backend.watch(network.pod.netns, resolve);
    network.sh("ip -n $POD rule del priority 32764");
    await promise;
    watch.close();
  });
}
