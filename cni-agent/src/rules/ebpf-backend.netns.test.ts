import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { parseIp } from "@ambit/common/net/ip.ts";
import type { Steering } from "@ambit/common/sys/bpf-steering.ts";
import * as linux from "@ambit/common/sys/constants.ts";
import { CONSTANTS } from "@ambit/common/sys/bpf-layout.gen.ts";
import { socketFd, socketMark } from "@ambit/common/sys/sockets.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { bindTo, bindToDevice, connectApp, setOption } from "../testing/app-socket.ts";
import { ALL, type EbpfHarness, ebpfHarness } from "../testing/redirection-harness.ts";
import { dial, ip, OUTSIDE, talk, TestServer } from "../testing/test-network.ts";
import { EbpfBackend } from "./ebpf-backend.ts";
import { EbpfNode } from "./ebpf-node.ts";
import { PROXY_MARK } from "./wire.ts";

const ANY = ip("::");
const APP_PORT = 8080;

let harness: EbpfHarness;
beforeAll(() => {
  harness = ebpfHarness();
});
afterEach(() => harness.reset());
afterAll(() => harness.close());

const steering = () => harness.node.steering;
const counted = (name: Parameters<ReturnType<Steering["counters"]>["get"]>[0]) =>
  steering().counters().get(name)!;

describe("capture that cannot be evaded", () => {
  it("includes a socket that is bound to a device", async () => {
    await harness.install();
    await using ztunnel = await harness.listen("OUTBOUND");
    const before = counted("DEVICE_CLEARED");
    const app = connectApp(harness.network.pod, OUTSIDE.ip4, 80, { prepare: bindToDevice });
    await talk(app, await ztunnel.next());
    expect(counted("DEVICE_CLEARED")).toBe(before + 1);
    app.destroy();
  });

  it("includes a socket that bears ztunnel's mark", async () => {
    await harness.install();
    await using ztunnel = await harness.listen("OUTBOUND");
    const prepare = (fd: number) => setOption(fd, linux.SOL_SOCKET, linux.SO_MARK, PROXY_MARK);
    const app = connectApp(harness.network.pod, OUTSIDE.ip4, 80, { prepare });
    await talk(app, await ztunnel.next());
    app.destroy();
  });

  it("leaves ztunnel's usual ports to applications", async () => {
    await harness.install();
    await using plaintext = await harness.listen("PLAINTEXT");
    for (const port of [15_001, 15_006]) {
      await using server = await TestServer.start(harness.network.pod, ANY, port);
      const self = connectApp(harness.network.pod, ip("127.0.0.1"), port);
      await talk(self, await server.next());
      const client = connectApp(harness.network.other, harness.network.pod.ip4, port);
      const captured = await plaintext.next();
      expect(harness.destinationOf(captured)).toEqual({ ip: harness.network.pod.ip4, port });
      client.destroy();
      self.destroy();
    }
  });

  it("takes what comes to an address that nobody told us of for inbound", async () => {
    const { network } = harness;
    await harness.install();
    network.sh("ip -n $POD addr add 10.77.1.77/24 dev eth0");
    await using outbound = await harness.listen("OUTBOUND");
    await using plaintext = await harness.listen("PLAINTEXT");
    const client = connectApp(network.node, ip("10.77.1.77"), APP_PORT);
    await plaintext.next();
    expect(outbound.connectionCount).toBe(0);
    expect(await harness.backend.verify(network.pod.netns, ALL)).toBe("drifted");
    network.sh("ip -n $POD addr del 10.77.1.77/24 dev eth0");
    client.destroy();
  });
});

describe("a pass", () => {
  /** ztunnel delivers from `other`'s address; ends with the application's side closed, ztunnel's open. */
  const deliver = async (server: TestServer) => {
    const { network } = harness;
    using _ = harness.asProxy();
    const spoof = network.other.ip4;
    const upstream = await dial(network.pod, network.pod.ip4, APP_PORT, {
      mark: PROXY_MARK,
      spoof,
    });
    const accepted = await server.next();
    await talk(upstream, accepted);
    return { upstream, accepted };
  };

  it("is used up when the application has accepted", async () => {
    await harness.install();
    await using server = await TestServer.start(harness.network.pod, ANY, APP_PORT);
    const consumed = counted("PASS_CONSUMED");
    const { upstream } = await deliver(server);
    expect(counted("PASS_CONSUMED")).toBe(consumed + 1);
    expect(steering().passCount).toBe(0);
    upstream.destroy();
  });

  it("does not let the client itself in by the port that ztunnel used for it", async () => {
    const { network } = harness;
    await harness.install();
    await using plaintext = await harness.listen("PLAINTEXT");
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    const { upstream, accepted } = await deliver(server);
    const port = accepted.remotePort!;
    accepted.resetAndDestroy();
    upstream.destroy();
    const prepare = (fd: number) => bindTo(fd, network.other.ip4, port);
    const client = connectApp(network.other, network.pod.ip4, APP_PORT, { prepare });
    const captured = await plaintext.next();
    expect(captured.remotePort).toBe(port);
    expect(server.connectionCount).toBe(1);
    client.destroy();
  });

  it("goes when the application refuses", async () => {
    await harness.install();
    const expired = counted("PASS_EXPIRED");
    using _ = harness.asProxy();
    const refused = dial(harness.network.pod, harness.network.pod.ip4, APP_PORT, {
      mark: PROXY_MARK,
      spoof: ip("10.99.0.5"),
    });
    await expect(refused).rejects.toMatchObject({ code: "ECONNREFUSED" });
    expect(counted("PASS_EXPIRED")).toBe(expired + 1);
    expect(steering().passCount).toBe(0);
  });
});

describe("a delivery that has no pass", () => {
  const markOf = (socket: Parameters<typeof socketFd>[0]) =>
    socketMark(socketFd(socket)) & CONSTANTS.MARK_MASK;

  it("comes back to ztunnel with its mark, which no client's connection has", async () => {
    const { network, node, cgroups } = harness;
    await harness.install();
    await using plaintext = await harness.listen("PLAINTEXT");
    // What a full map comes to: nobody notes what ztunnel opens.
    for (const name of node.pins.names("proxies")) node.pins.detach("proxies", name);
    const deliver = async () => {
      using _ = harness.asProxy();
      const as = { mark: PROXY_MARK, spoof: network.other.ip4 };
      return await dial(network.pod, network.pod.ip4, APP_PORT, as);
    };
    // The kernel lets go of a program a little after its pin: until then what ztunnel opens may pass.
    const upstream = await vi.waitFor(deliver);
    expect(markOf(await plaintext.next())).toBe(CONSTANTS.CAPTURE_MARK);
    const client = connectApp(network.other, network.pod.ip4, APP_PORT);
    expect(markOf(await plaintext.next())).toBe(0);
    for (const socket of [upstream, client]) socket.destroy();
    node.admitProxy(cgroups.ztunnel);
  });
});

describe("ztunnel's life", () => {
  it("refuses at once and counts it when ztunnel is gone", async () => {
    await harness.install();
    const before = counted("REFUSED_NO_LISTENER");
    {
      await using _ = await harness.listen("OUTBOUND");
    }
    expect(() => connectApp(harness.network.pod, OUTSIDE.ip4, 80)).toThrow("EPERM");
    expect(counted("REFUSED_NO_LISTENER")).toBe(before + 1);
  });

  it("refuses when ztunnel has stopped renewing its lease, and not before", async () => {
    await harness.install();
    await using ztunnel = await harness.listen("OUTBOUND");
    steering().renewLease(60_000);
    const app = connectApp(harness.network.pod, OUTSIDE.ip4, 80);
    await ztunnel.next();
    app.destroy();
    steering().renewLease(-1_000);
    expect(() => connectApp(harness.network.pod, OUTSIDE.ip4, 80)).toThrow("EPERM");
    steering().renewLease(0);
  });

  it("passes listeners on: what waits stays with the old one, what is new goes to the new one", async () => {
    await harness.install();
    await using old = await harness.listen("OUTBOUND");
    const first = connectApp(harness.network.pod, OUTSIDE.ip4, 80);
    await using successor = await harness.listen("OUTBOUND");
    const second = connectApp(harness.network.pod, OUTSIDE.ip4, 81);
    await talk(first, await old.next());
    await talk(second, await successor.next());
    first.destroy();
    second.destroy();
  });

  it("is not admitted from a cgroup that holds pods", () => {
    for (const folder of [harness.cgroups.node, `${harness.cgroups.node}/..`]) {
      expect(() => harness.node.admitProxy(folder)).toThrow("give it its own cgroup");
    }
  });
});

describe("another agent", () => {
  it("takes over pods, links and maps without a gap and without doubling a program", async () => {
    const { network, cgroups, pins } = harness;
    await harness.install();
    await using ztunnel = await harness.listen("OUTBOUND");
    const app = connectApp(network.pod, OUTSIDE.ip4, 80);
    const captured = await ztunnel.next();
    for (let restart = 0; restart < 3; restart++) {
      const hostNetns = network.node.netns;
      using node = new EbpfNode({ cgroup: cgroups.node, pins, hostNetns });
      node.attach();
      const successor = new EbpfBackend(node, harness.backend, harness.kubelet);
      expect(await successor.verify(network.pod.netns, ALL)).toBe("ok");
      await successor.install(network.pod.netns, ALL);
    }
    await talk(app, captured);
    const captures = counted("CAPTURED");
    const again = connectApp(network.pod, OUTSIDE.ip4, 81);
    await ztunnel.next();
    expect(counted("CAPTURED")).toBe(captures + 1);
    app.destroy();
    again.destroy();
  });

  it("forgets a pod whose namespace went while no agent was there", async () => {
    const { network, node } = harness;
    await harness.backend.install(network.other.netns, ALL);
    const cookie = cookieOfNetns(network.other.netns.fd);
    expect(node.pins.names("pods")).toEqual([`${cookie}`]);
    network.other.netns.close();
    network.sh("ip netns del $OTHER; ip netns add $OTHER");
    await expect.poll(() => node.collectGarbage()).toBe(1);
    expect(node.pins.names("pods")).toEqual([]);
    expect(steering().slotOf(cookie)).toBeUndefined();
  });
});

it("refuses the node's own namespace", async () => {
  const { backend, network } = harness;
  await expect(backend.install(network.node.netns, ALL)).rejects.toThrow("the node's own");
});

it("keeps a pod's addresses as they are written", async () => {
  await harness.install();
  const { ip4, ip6 } = harness.network.pod;
  const addresses = steering().addresses(harness.slot());
  expect(addresses).toEqual(expect.arrayContaining([ip4, ip6]));
  expect(addresses.every((address) => parseIp(address) === address)).toBe(true);
});
