import { createSocket } from "node:dgram";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Ip } from "@ambit/common/net/ip.ts";
import { parseIp } from "@ambit/common/net/ip.ts";
import { originalDst, socketFd, udpSocket } from "@ambit/common/sys/sockets.ts";
import {
  createTestNetwork,
  dial,
  ip,
  OUTSIDE,
  talk,
  type TestNetwork,
  TestServer,
} from "../testing/test-network.ts";
import type { PodRedirection } from "./backend.ts";
import { NftablesBackend } from "./nftables-backend.ts";
import { PROBE_IPV4, PROBE_IPV6, PROXY_MARK } from "./wire.ts";

const ALL: PodRedirection = {
  dnsCapture: true,
  inboundCapture: true,
  virtualInterfaces: [],
  ipv6: true,
};
const ANY = ip("::");
const FAMILIES = [["ip4"], ["ip6"]] as const;

let network: TestNetwork;
let backend: NftablesBackend;

beforeEach(() => {
  network = createTestNetwork();
  backend = new NftablesBackend({ hostNetns: network.node.netns, probeUid: undefined });
});

afterEach(() => network.remove());

const install = (changes: Partial<PodRedirection> = {}) =>
  backend.install(network.pod.netns, { ...ALL, ...changes });

async function udpAt(netnsFd: number, address: Ip, port: number, mark?: number) {
  const options = { address: { ip: address, port }, ...(mark !== undefined && { mark }) };
  const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
  const listening = once(socket, "listening");
  socket.bind({ fd: udpSocket(netnsFd, options) });
  await listening;
  return socket;
}

describe("outbound capture", () => {
  it.each(FAMILIES)("sends %s connections to 15001 with the original destination", async (f) => {
    await install();
    await using ztunnel = await TestServer.start(network.pod, ANY, 15001, PROXY_MARK);
    const app = await dial(network.pod, OUTSIDE[f], 80);
    const captured = await ztunnel.next();
    expect(originalDst(socketFd(captured))).toEqual({ ip: OUTSIDE[f], port: 80 });
    await talk(app, captured);
    app.destroy();
  });

  it.each(FAMILIES)("lets ztunnel's own %s connections out", async (f) => {
    await install();
    await using outside = await TestServer.start(network.node, ANY, 80);
    const socket = await dial(network.pod, OUTSIDE[f], 80, { mark: PROXY_MARK });
    await talk(socket, await outside.next());
    socket.destroy();
  });

  it.each(FAMILIES)("leaves a pod's calls to its own %s address alone", async (f) => {
    await install();
    await using app = await TestServer.start(network.pod, ANY, 8080);
    const socket = await dial(network.pod, network.pod[f], 8080);
    await talk(socket, await app.next());
    socket.destroy();
  });

  it.each([["127.0.0.1"], ["::1"]])("leaves calls to %s alone", async (address) => {
    await install();
    await using app = await TestServer.start(network.pod, ANY, 8080);
    const socket = await dial(network.pod, ip(address), 8080);
    await talk(socket, await app.next());
    socket.destroy();
  });

  it("refuses rather than leaks when ztunnel is not there", async () => {
    await install();
    await using outside = await TestServer.start(network.node, ANY, 80);
    await expect(dial(network.pod, OUTSIDE.ip4, 80)).rejects.toMatchObject({
      code: "ECONNREFUSED",
    });
    expect(outside.connectionCount).toBe(0);
  });

  it("counts what arrives by a virtual interface as outbound", async () => {
    await install({ virtualInterfaces: ["eth0"] });
    await using ztunnel = await TestServer.start(network.pod, ANY, 15001, PROXY_MARK);
    const guest = await dial(network.other, network.pod.ip4, 8080);
    const captured = await ztunnel.next();
    expect(originalDst(socketFd(captured))).toEqual({ ip: network.pod.ip4, port: 8080 });
    guest.destroy();
  });
});

describe("inbound capture", () => {
  it.each(FAMILIES)("sends plain %s connections to 15006", async (f) => {
    await install();
    await using ztunnel = await TestServer.start(network.pod, ANY, 15006, PROXY_MARK);
    await using app = await TestServer.start(network.pod, ANY, 8080);
    const client = await dial(network.other, network.pod[f], 8080);
    const captured = await ztunnel.next();
    expect(originalDst(socketFd(captured))).toEqual({ ip: network.pod[f], port: 8080 });
    expect(parseIp(captured.remoteAddress!)).toBe(network.other[f]);
    await talk(client, captured);
    expect(app.connectionCount).toBe(0);
    client.destroy();
  });

  it.each(FAMILIES)("lets %s tunnels reach 15008", async (f) => {
    await install();
    await using ztunnel = await TestServer.start(network.pod, ANY, 15008, PROXY_MARK);
    const client = await dial(network.other, network.pod[f], 15008);
    const accepted = await ztunnel.next();
    expect(originalDst(socketFd(accepted))).toEqual({ ip: network.pod[f], port: 15008 });
    await talk(client, accepted);
    client.destroy();
  });

  it.each([
    ["ip4", "10.99.0.5"],
    ["ip6", "fd99::5"],
  ] as const)("carries %s connections from a spoofed client both ways", async (f, client) => {
    await install();
    await using app = await TestServer.start(network.pod, ANY, 8080);
    const options = { mark: PROXY_MARK, spoof: ip(client) };
    const upstream = await dial(network.pod, network.pod[f], 8080, options);
    const accepted = await app.next();
    expect(parseIp(accepted.remoteAddress!)).toBe(client);
    await talk(upstream, accepted);
    upstream.destroy();
  });

  it("leaves inbound alone when it is bypassed, and still captures outbound", async () => {
    await install({ inboundCapture: false });
    await using app = await TestServer.start(network.pod, ANY, 8080);
    await using ztunnel = await TestServer.start(network.pod, ANY, 15001, PROXY_MARK);
    const client = await dial(network.other, network.pod.ip4, 8080);
    await talk(client, await app.next());
    const out = await dial(network.pod, OUTSIDE.ip4, 80);
    await talk(out, await ztunnel.next());
    client.destroy();
    out.destroy();
  });
});

describe("probe exemption", () => {
  const targets = () =>
    new Map([
      [network.pod.ip4, { uid: "uid-1" }],
      [network.pod.ip6, { uid: "uid-1" }],
    ]);

  it.each([
    ["ip4", PROBE_IPV4],
    ["ip6", PROBE_IPV6],
  ] as const)("lets the node's %s sockets reach the app past ztunnel", async (f, source) => {
    await install();
    await backend.installHost(targets());
    await using app = await TestServer.start(network.pod, ANY, 8080);
    const probe = await dial(network.node, network.pod[f], 8080);
    const accepted = await app.next();
    expect(parseIp(accepted.remoteAddress!)).toBe(source);
    await talk(probe, accepted);
    probe.destroy();
  });

  it.each(FAMILIES)("does not exempt %s connections that the node forwards", async (f) => {
    await install();
    await backend.installHost(targets());
    await using ztunnel = await TestServer.start(network.pod, ANY, 15006, PROXY_MARK);
    const client = await dial(network.other, network.pod[f], 8080);
    const captured = await ztunnel.next();
    expect(parseIp(captured.remoteAddress!)).toBe(network.other[f]);
    client.destroy();
  });

  it("exempts only the given user's sockets when one is given", async () => {
    const narrow = new NftablesBackend({ hostNetns: network.node.netns, probeUid: 65_533 });
    await install();
    await narrow.installHost(targets());
    await using ztunnel = await TestServer.start(network.pod, ANY, 15006, PROXY_MARK);
    const client = await dial(network.node, network.pod.ip4, 8080);
    await ztunnel.next();
    client.destroy();
  });

  it("holds exactly the addresses of the last call, and reads them back with their pods", async () => {
    await backend.installHost(targets());
    await backend.installHost(new Map([[network.pod.ip4, { uid: "uid-2" }]]));
    expect(await backend.readHost()).toEqual(new Map([[network.pod.ip4, { uid: "uid-2" }]]));
    await backend.installHost(targets());
    expect(await backend.readHost()).toEqual(targets());
    await backend.removeHost();
    await backend.removeHost();
    expect(await backend.readHost()).toEqual(new Map());
  });
});

describe("DNS capture", () => {
  it.each([
    ["ip4", "127.0.0.1"],
    ["ip6", "::1"],
  ] as const)("sends %s queries to 15053 and the answers back", async (f, listen) => {
    await install();
    const ztunnel = await udpAt(network.pod.netns.fd, ip(listen), 15053, PROXY_MARK);
    ztunnel.on("message", (query, from) =>
      ztunnel.send(`re: ${query.toString()}`, from.port, from.address),
    );
    const app = await udpAt(network.pod.netns.fd, ip(f === "ip4" ? "0.0.0.0" : "::"), 0);
    app.send("query", 53, OUTSIDE[f]);
    const [answer, from] = (await once(app, "message")) as [Buffer, { address: string }];
    expect([answer.toString(), parseIp(from.address)]).toEqual(["re: query", OUTSIDE[f]]);
    ztunnel.close();
    app.close();
  });

  it("captures DNS over TCP before the outbound rule sees it", async () => {
    await install();
    await using ztunnel = await TestServer.start(network.pod, ip("127.0.0.1"), 15053, PROXY_MARK);
    const app = await dial(network.pod, OUTSIDE.ip4, 53);
    await talk(app, await ztunnel.next());
    app.destroy();
  });

  it("lets ztunnel's own query out although the app's has the same tuple", async () => {
    await install();
    const server = await udpAt(network.node.netns.fd, OUTSIDE.ip4, 53);
    server.on("message", (query, from) =>
      server.send(`up: ${query.toString()}`, from.port, from.address),
    );
    const proxy = await udpAt(network.pod.netns.fd, ip("127.0.0.1"), 15053, PROXY_MARK);
    const app = await udpAt(network.pod.netns.fd, network.pod.ip4, 40_001);
    app.send("query", 53, OUTSIDE.ip4);
    const [query, from] = (await once(proxy, "message")) as [
      Buffer,
      { port: number; address: string },
    ];
    app.close();
    await once(app, "close");
    const upstream = await udpAt(network.pod.netns.fd, network.pod.ip4, 40_001, PROXY_MARK);
    upstream.send(query, 53, OUTSIDE.ip4);
    const [answer] = (await once(upstream, "message")) as [Buffer];
    expect(answer.toString()).toBe("up: query");
    expect(from.port).toBe(40_001);
    for (const socket of [server, proxy, upstream]) socket.close();
  });

  it("leaves DNS alone when it is switched off", async () => {
    await install({ dnsCapture: false });
    const server = await udpAt(network.node.netns.fd, OUTSIDE.ip4, 53);
    const app = await udpAt(network.pod.netns.fd, ip("0.0.0.0"), 0);
    app.send("query", 53, OUTSIDE.ip4);
    const [query] = (await once(server, "message")) as [Buffer];
    expect(query.toString()).toBe("query");
    app.close();
    server.close();
  });
});

describe("the rules' life", () => {
  const verify = (changes: Partial<PodRedirection> = {}) =>
    backend.verify(network.pod.netns, { ...ALL, ...changes });

  it("goes from absent to ok and back, any number of times", async () => {
    expect(await verify()).toBe("absent");
    for (let round = 0; round < 2; round++) {
      await install();
      await install();
      expect(await verify()).toBe("ok");
    }
    for (let round = 0; round < 2; round++) await backend.remove(network.pod.netns);
    expect(await verify()).toBe("absent");
    expect(network.sh("ip netns exec $POD nft list ruleset")).toBe("");
    expect(network.sh("ip -n $POD rule; ip -n $POD -6 rule")).not.toContain("fwmark");
  });

  const drifts = [
    ["a flushed chain", "nft flush chain inet istio-ambient-nat istio-output"],
    ["a missing table", "nft delete table inet istio-ambient-raw"],
    ["an added rule", "nft insert rule inet istio-ambient-nat istio-output accept"],
    ["a missing route", "ip route del local default table 100"],
    ["a missing IPv6 rule", "ip -6 rule del priority 32764"],
  ] as const;
  it.each(drifts)("notices and mends %s", async (_name, damage) => {
    await install();
    network.sh(`ip netns exec $POD ${damage}`);
    expect(await verify()).toBe("drifted");
    await install();
    expect(await verify()).toBe("ok");
  });

  it("notices that other rules are wanted, and drops the DNS table with them", async () => {
    await install();
    expect(await verify({ dnsCapture: false })).toBe("drifted");
    await install({ dnsCapture: false });
    expect(await verify({ dnsCapture: false })).toBe("ok");
  });

  it("leaves others' rules alone", async () => {
    network.sh("ip netns exec $POD nft add table inet mine");
    await install();
    await backend.remove(network.pod.netns);
    expect(network.sh("ip netns exec $POD nft list tables")).toBe("table inet mine\n");
  });

  it("keeps established connections over a repeated installation", async () => {
    await install();
    await using ztunnel = await TestServer.start(network.pod, ANY, 15001, PROXY_MARK);
    const app = await dial(network.pod, OUTSIDE.ip4, 80);
    const captured = await ztunnel.next();
    await install({ dnsCapture: false });
    await talk(app, captured);
    app.destroy();
  });

  it("works in a pod without IPv6", async () => {
    network.sh("ip netns exec $POD sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    await install();
    expect(await verify()).toBe("ok");
    await backend.remove(network.pod.netns);
    expect(await verify()).toBe("absent");
  });
});
