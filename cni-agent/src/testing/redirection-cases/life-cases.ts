// Coming, going, drifting, being mended.

import { expect, it } from "vitest";
import { connectApp } from "../app-socket.ts";
import type { RedirectionHarness } from "../redirection-harness.ts";
import { OUTSIDE, talk } from "../test-network.ts";

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
