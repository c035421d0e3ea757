import { execFileSync } from "node:child_process";
import net from "node:net";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseIp, type Ip } from "../net/ip.ts";
import { type ByteDial, ByteDialer } from "./byte-dialer.ts";
import { closeFd } from "./libc.ts";
import {
  bindSpoofed,
  connectTcp,
  listenTcp,
  netnsCookie,
  openDialSocket,
  originalDst,
  socketFd,
} from "./sockets.ts";
import { nextSpoofedPort } from "./spoofed-ports.ts";
import { inNetns, openNetns, type NetnsHandle } from "./netns.ts";

const NAME = `ambit-test-sys-${process.pid}`;
const ip = (text: string): Ip => parseIp(text)!;
const sh = (command: string) => execFileSync("sh", ["-ec", command], { encoding: "utf8" });

let netns: NetnsHandle;

beforeAll(() => {
  sh(`ip netns add ${NAME}; ip -n ${NAME} link set lo up
      ip -n ${NAME} link add d0 type veth peer name d1; ip -n ${NAME} link set d1 up
      ip -n ${NAME} addr add 10.9.9.1/24 dev d0
      ip -n ${NAME} addr add fd09::1/64 dev d0 nodad; ip -n ${NAME} link set d0 up
      ip -n ${NAME} rule add fwmark 0x111 lookup 100; ip -n ${NAME} route add local default dev lo table 100`);
  netns = openNetns(`/run/netns/${NAME}`);
});

afterAll(() => {
  netns?.close();
  sh(`ip netns del ${NAME} || true`);
});

async function serve(address: string, port: number) {
  const fd = listenTcp(netns.fd, {
    address: { ip: ip(address), port },
    transparent: "best-effort",
    mark: 1337,
  });
  const server = net.createServer({ allowHalfOpen: true });
  server.listen({ fd });
  await once(server, "listening");
  return server;
}

describe("sockets in another network namespace", () => {
  it("listens and connects there while the thread stays at home", async () => {
    const home = inNetns(undefined, () =>
      execFileSync("readlink", ["/proc/self/ns/net"], { encoding: "utf8" }),
    );
    const server = await serve("::", 4000);
    const accepted = once(server, "connection") as Promise<[net.Socket]>;
    const { socket } = await connectTcp(netns.fd, {
      destination: { ip: ip("10.9.9.1"), port: 4000 },
      mark: 1337,
      timeoutMs: 2000,
    });
    const [peer] = await accepted;
    expect(netnsCookie(socketFd(socket))).toBe(netnsCookie(socketFd(peer)));
    expect(originalDst(socketFd(peer))).toBeUndefined();
    peer.end("hello");
    socket.resume();
    const [data] = (await once(socket, "data")) as [Buffer];
    expect(data.toString()).toBe("hello");
    socket.destroy();
    server.close();
    expect(execFileSync("readlink", ["/proc/self/ns/net"], { encoding: "utf8" })).toBe(home);
  });

  it.each([
    ["10.9.9.1", "192.0.2.7"],
    ["fd09::1", "2001:db8::7"],
  ])("connects to %s from the foreign address %s", async (address, foreign) => {
    const server = await serve(address, 4001);
    const accepted = once(server, "connection") as Promise<[net.Socket]>;
    sh(
      `ip -n ${NAME} -6 rule add fwmark 0x111 lookup 100 2>/dev/null || true; ip -n ${NAME} -6 route replace local default dev lo table 100`,
    );
    sh(
      `ip -n ${NAME} route replace local 192.0.2.7 dev lo; ip -n ${NAME} -6 route replace local 2001:db8::7 dev lo`,
    );
    const { socket, spoofed } = await connectTcp(netns.fd, {
      destination: { ip: ip(address), port: 4001 },
      spoof: { ip: ip(foreign), port: 0 },
      mark: 1337,
      timeoutMs: 2000,
    });
    const [peer] = await accepted;
    expect(spoofed).toBe(true);
    expect(parseIp(peer.remoteAddress!)).toBe(foreign);
    socket.destroy();
    peer.destroy();
    server.close();
  });

  it("connects from a foreign address by other ports than that one's owner does", async () => {
    const server = await serve("10.9.9.1", 4002);
    server.on("connection", (peer: net.Socket) => peer.resume());
    const destination = { ip: ip("10.9.9.1"), port: 4002 };
    const portsOf = async (spoof: { ip: Ip; port: number } | undefined) => {
      const parities = new Set<number>();
      for (let i = 0; i < 20; i++) {
        const dial = { destination, timeoutMs: 2000, mark: 0x111, ...(spoof && { spoof }) };
        const { socket } = await connectTcp(netns.fd, dial);
        parities.add(socket.localPort! % 2);
        socket.destroy();
      }
      return [...parities];
    };
    const own = await portsOf(undefined);
    const foreign = await portsOf({ ip: ip("192.0.2.7"), port: 0 });
    expect([own, foreign]).toEqual([[0], [1]]);
    server.close();
  });

  it("connects from a foreign address by a port that an application may listen on", async () => {
    const server = await serve("10.9.9.1", 4004);
    const { socket } = await connectTcp(netns.fd, {
      destination: { ip: ip("10.9.9.1"), port: 4004 },
      spoof: { ip: ip("192.0.2.7"), port: 0 },
      mark: 0x111,
      timeoutMs: 2000,
    });
    const application = await serve("::", socket.localPort!);
    for (const each of [application, server]) each.close();
    socket.destroy();
  });

  it("connects from a foreign address whose next odd ports are taken", async () => {
    const server = await serve("10.9.9.1", 4003);
    const before = nextSpoofedPort();
    const taken = inNetns(netns.fd, () =>
      Array.from({ length: 8 }, (_, i) => {
        const fd = openDialSocket(4, {});
        const port = 32_769 + ((before + 2 * (i + 1) - 32_769) % 28_232);
        expect(bindSpoofed(fd, { ip: ip("192.0.2.7"), port }, 4)).toBe(true);
        return fd;
      }),
    );
    const { socket, spoofed } = await connectTcp(netns.fd, {
      destination: { ip: ip("10.9.9.1"), port: 4003 },
      spoof: { ip: ip("192.0.2.7"), port: 0 },
      mark: 0x111,
      timeoutMs: 2000,
    });
    expect([spoofed, socket.localPort! % 2]).toEqual([true, 0]);
    socket.destroy();
    server.close();
    taken.forEach(closeFd);
  });

  it.each([
    ["a Node socket", connectTcp],
    ["a byte socket", (fd: number, dial: ByteDial) => new ByteDialer(fd).connect(dial)],
  ])("reports for %s by Node's codes that it was refused or blackholed", async (_, connect) => {
    const refused = connect(netns.fd, {
      destination: { ip: ip("10.9.9.1"), port: 9 },
      timeoutMs: 2000,
    });
    await expect(refused).rejects.toMatchObject({ code: "ECONNREFUSED" });
    const lost = connect(netns.fd, {
      destination: { ip: ip("10.9.9.77"), port: 9 },
      timeoutMs: 100,
    });
    await expect(lost).rejects.toMatchObject({ code: "ETIMEDOUT" });
  });

  it("works from a worker thread, whose namespace is its own", async () => {
    const code = `
      import { parentPort } from "node:worker_threads";
      import { listenTcp } from ${JSON.stringify(new URL("./sockets.ts", import.meta.url).href)};
      const fd = listenTcp(${netns.fd}, { address: { ip: "10.9.9.1", port: 4002 } });
      parentPort.postMessage(fd);`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
    const [fd] = (await once(worker, "message")) as [number];
    expect(fd).toBeGreaterThan(2);
    expect(sh(`ip netns exec ${NAME} ss -ltn`)).toContain("10.9.9.1:4002");
    await worker.terminate();
  });

  it("names the port in the error when it is taken", async () => {
    const server = await serve("10.9.9.1", 4003);
    expect(() => listenTcp(netns.fd, { address: { ip: ip("10.9.9.1"), port: 4003 } })).toThrow(
      /port 4003: EADDRINUSE/,
    );
    server.close();
  });
});
