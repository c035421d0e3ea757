import net from "node:net";
import { once } from "node:events";
import { afterEach, describe, expect, it } from "vitest";
import type { Ip } from "../net/ip.ts";
import { ByteDialer } from "./byte-dialer.ts";
import * as linux from "./constants.ts";
import { call, closeFd } from "./libc.ts";
import {
  connectTcp,
  type Keepalive,
  listenTcp,
  localPort,
  socketFd,
  udpSocket,
} from "./sockets.ts";

// What the kernel knows of our sockets. Setting marks needs CAP_NET_ADMIN.

const LOOPBACK = "127.0.0.1" as Ip;
const MARK = 1337;
const KEEPALIVE: Keepalive = {
  timeSeconds: 181,
  intervalSeconds: 182,
  retries: 7,
  userTimeout: false,
};

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

function option(fd: number, level: number, name: number): number {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(4);
  call("getsockopt", String(name), fd, level, name, value, length);
  return value.readInt32LE();
}

const markOf = (fd: number) => option(fd, linux.SOL_SOCKET, linux.SO_MARK);
const noDelayOf = (fd: number) => option(fd, linux.IPPROTO_TCP, linux.TCP_NODELAY);
const userTimeoutOf = (fd: number) => option(fd, linux.IPPROTO_TCP, linux.TCP_USER_TIMEOUT);
const keepaliveOf = (fd: number) => [
  option(fd, linux.SOL_SOCKET, linux.SO_KEEPALIVE),
  option(fd, linux.IPPROTO_TCP, linux.TCP_KEEPIDLE),
  option(fd, linux.IPPROTO_TCP, linux.TCP_KEEPINTVL),
  option(fd, linux.IPPROTO_TCP, linux.TCP_KEEPCNT),
];

type Listening = Omit<Parameters<typeof listenTcp>[1], "address">;

function listen(options: Listening, port = 0): number {
  const fd = listenTcp(undefined, { address: { ip: LOOPBACK, port }, ...options });
  closing.push(() => closeFd(fd));
  return fd;
}

function udp(options: Listening, port = 0): number {
  const fd = udpSocket(undefined, { address: { ip: LOOPBACK, port }, ...options });
  closing.push(() => closeFd(fd));
  return fd;
}

describe("a mark", () => {
  it("is on listeners, over TCP and UDP, only where it is asked for", () => {
    expect([listen({ mark: MARK }), udp({ mark: MARK })].map(markOf)).toEqual([MARK, MARK]);
    expect([listen({}), udp({})].map(markOf)).toEqual([0, 0]);
  });

  it("is on what is accepted and on what is dialed, by either way to dial", async () => {
    const { dialed, accepted } = await pair({ mark: MARK }, { mark: MARK });
    expect([dialed, accepted].map(markOf)).toEqual([MARK, MARK]);
    const plain = await pair({}, {});
    expect([plain.dialed, plain.accepted].map(markOf)).toEqual([0, 0]);
    const { fd } = await byteSocket({ mark: MARK });
    expect(markOf(fd)).toBe(MARK);
  });
});

describe("a port", () => {
  it.each([
    ["TCP", listen],
    ["UDP", udp],
  ])("is shared over %s by those who all say so, and by nobody else", (_, open) => {
    const port = localPort(open({ reusePort: true }));
    expect(localPort(open({ reusePort: true }, port))).toBe(port);
    expect(() => open({}, port)).toThrow(/EADDRINUSE/);
    const own = localPort(open({}));
    expect(() => open({ reusePort: true }, own)).toThrow(/EADDRINUSE/);
  });
});

describe("keepalive", () => {
  const on = [1, 181, 182, 7];

  it("is on what is dialed and what is accepted, with the times that were asked for", async () => {
    const { dialed, accepted } = await pair({ keepalive: KEEPALIVE }, { keepalive: KEEPALIVE });
    expect([dialed, accepted].map(keepaliveOf)).toEqual([on, on]);
    expect([dialed, accepted].map(userTimeoutOf)).toEqual([0, 0]);
    const { fd } = await byteSocket({ keepalive: KEEPALIVE });
    expect(keepaliveOf(fd)).toEqual(on);
  });

  it("is off where it is not asked for", async () => {
    const { dialed, accepted } = await pair({}, {});
    expect([dialed, accepted].map((fd) => keepaliveOf(fd)[0])).toEqual([0, 0]);
  });

  it("bounds unacknowledged data by the same time, where that is wanted", async () => {
    const strict = { ...KEEPALIVE, userTimeout: true };
    const { dialed } = await pair({}, { keepalive: strict });
    expect(userTimeoutOf(dialed)).toBe((181 + 7 * 182) * 1_000);
  });
});

it("nothing waits to be joined with more: TCP_NODELAY is on every connection", async () => {
  const { dialed, accepted } = await pair({}, {});
  const { fd } = await byteSocket({});
  expect([dialed, accepted, fd].map(noDelayOf)).toEqual([1, 1, 1]);
});

/** A connection to a listener: the descriptors of both ends. */
async function pair(
  listening: Listening,
  dialing: Pick<Parameters<typeof connectTcp>[1], "mark" | "keepalive">,
): Promise<{ dialed: number; accepted: number }> {
  const server = await serve(listening);
  const accepting = once(server, "connection") as Promise<[net.Socket]>;
  const destination = { ip: LOOPBACK, port: (server.address() as net.AddressInfo).port };
  const { socket } = await connectTcp(undefined, { destination, timeoutMs: 2_000, ...dialing });
  const [accepted] = await accepting;
  closing.push(() => [socket, accepted].forEach((one) => one.destroy()));
  return { dialed: socketFd(socket), accepted: socketFd(accepted) };
}

async function byteSocket(options: ConstructorParameters<typeof ByteDialer>[1]) {
  const server = await serve({});
  const destination = { ip: LOOPBACK, port: (server.address() as net.AddressInfo).port };
  const dialer = new ByteDialer(undefined, options);
  const { socket } = await dialer.connect({ destination, timeoutMs: 2_000 });
  closing.push(
    () => socket.destroy(),
    () => dialer.close(),
  );
  return socket;
}

async function serve(listening: Listening): Promise<net.Server> {
  const fd = listenTcp(undefined, { address: { ip: LOOPBACK, port: 0 }, ...listening });
  const server = net.createServer();
  server.listen({ fd });
  await once(server, "listening");
  closing.push(() => server.close());
  return server;
}
