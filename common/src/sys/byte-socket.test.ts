// Both ByteSockets are asked the same: the one on a descriptor and the one on a Node socket.

import { once } from "node:events";
import net from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import type { ByteSocket, ByteSocketHandler } from "../net/byte-socket.ts";
import { parseIp } from "../net/ip.ts";
import { NetByteSocket } from "../net/net-byte-socket.ts";
import { SCRATCH_BYTES } from "../net/scratch.ts";
import { acceptBytes, type ByteListener } from "./accept-bytes.ts";
import { fdLoop } from "./fd-loop.ts";
import { FdSocket } from "./fd-socket.ts";
import { closeFd } from "./libc.ts";
import { ByteDialer } from "./byte-dialer.ts";
import { listenTcp, localPort } from "./sockets.ts";

const ip = parseIp("127.0.0.1")!;
const cleanups: (() => void)[] = [];
afterEach(() => cleanups.splice(0).forEach((cleanup) => cleanup()));

class Recorder implements ByteSocketHandler {
  readonly events: string[] = [];
  readonly #chunks: Buffer[] = [];
  readonly closed = Promise.withResolvers<Error | undefined>();
  readonly ended = Promise.withResolvers<void>();
  onBytes(bytes: Buffer): void {
    this.#chunks.push(Buffer.from(bytes));
  }
  onEnd(): void {
    this.events.push("end");
    this.ended.resolve();
  }
  onWritable(): void {
    this.events.push("writable");
  }
  onClose(error?: Error): void {
    this.events.push("close");
    this.closed.resolve(error);
  }
  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}

function record(socket: ByteSocket): Recorder {
  const recorder = new Recorder();
  socket.handler = recorder;
  return recorder;
}

type Accept = (fd: number, onSocket: (socket: ByteSocket) => void) => ByteListener;

async function pair(accept: Accept): Promise<{ socket: ByteSocket; peer: net.Socket }> {
  const fd = listenTcp(undefined, { address: { ip, port: 0 } });
  const port = localPort(fd);
  const { promise: accepted, resolve } = Promise.withResolvers<ByteSocket>();
  const server = accept(fd, resolve);
  const peer = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  peer.on("error", () => undefined);
  const [socket] = await Promise.all([accepted, once(peer, "connect")]);
  cleanups.push(() => {
    server.close();
    peer.destroy();
    socket.destroy();
  });
  return { socket, peer };
}

async function readAll(peer: net.Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  peer.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(peer, "end");
  return Buffer.concat(chunks);
}

const overNode: Accept = (fd, onSocket) =>
  net
    .createServer({ allowHalfOpen: true, pauseOnConnect: true })
    .on("connection", (socket: net.Socket) => onSocket(new NetByteSocket(socket)))
    .listen({ fd });

describe.each<[string, Accept, new (...args: never[]) => ByteSocket]>([
  ["on a descriptor", acceptBytes, FdSocket],
  ["on a Node socket", overNode, NetByteSocket],
])("a byte socket %s", (_, accept, kind) => {
  it("knows both ends", async () => {
    const { socket, peer } = await pair(accept);
    expect(socket).toBeInstanceOf(kind);
    expect(socket.remote).toEqual({ ip: "127.0.0.1", port: peer.localPort });
    expect(socket.local).toEqual({ ip: "127.0.0.1", port: peer.remotePort });
    expect(socket.fd).toBeGreaterThan(2);
  });

  it("reads nothing before it is resumed, nor while paused", async () => {
    const { socket, peer } = await pair(accept);
    const recorder = record(socket);
    peer.write("first");
    await new Promise((resolve) => setImmediate(resolve));
    expect(recorder.bytes.length).toBe(0);
    socket.resume();
    await expect.poll(() => recorder.bytes.toString()).toBe("first");
    socket.pause();
    peer.write("second");
    await new Promise((resolve) => setImmediate(resolve));
    expect(recorder.bytes.toString()).toBe("first");
    socket.resume();
    await expect.poll(() => recorder.bytes.toString()).toBe("firstsecond");
  });

  it("writes copies: the caller's memory is its own again at once", async () => {
    const { socket, peer } = await pair(accept);
    record(socket);
    const bytes = Buffer.from("abc");
    socket.write(bytes, true);
    bytes.fill("x");
    socket.write(Buffer.from("def"));
    socket.end();
    expect((await readAll(peer)).toString()).toBe("abcdef");
  });

  it("sends what was to wait for more at the end of the turn", async () => {
    const { socket, peer } = await pair(accept);
    record(socket);
    socket.write(Buffer.from("waits"), true);
    const [data] = (await once(peer, "data")) as [Buffer];
    expect(data.toString()).toBe("waits");
  });

  it("carries many times its buffers, with pauses where the peer stands still", async () => {
    const { socket, peer } = await pair(accept);
    const recorder = record(socket);
    const payload = Buffer.alloc(SCRATCH_BYTES * 40 + 7, "0123456789abcdef-");
    let taken = true;
    for (let at = 0; at < payload.length && taken; at += 100_000) {
      taken = socket.write(payload.subarray(at, at + 100_000));
      if (!taken) socket.write(payload.subarray(at + 100_000));
    }
    expect(taken).toBe(false);
    socket.end();
    const received = await readAll(peer);
    expect(received.equals(payload)).toBe(true);
    expect(recorder.events).not.toContain("close");
  });

  it("says when it can be written to again", async () => {
    const { socket, peer } = await pair(accept);
    const recorder = record(socket);
    while (socket.write(Buffer.alloc(SCRATCH_BYTES))) {
      // Until the kernel is full.
    }
    expect(recorder.events).toEqual([]);
    peer.resume();
    await expect.poll(() => recorder.events).toEqual(["writable"]);
  });

  it("half-closes either way, and closes when both are done", async () => {
    const { socket, peer } = await pair(accept);
    const recorder = record(socket);
    socket.resume();
    peer.end("request");
    await recorder.ended.promise;
    expect(socket.destroyed).toBe(false);
    const answer = readAll(peer);
    socket.write(Buffer.from("answer"));
    socket.end();
    expect((await answer).toString()).toBe("answer");
    expect(await recorder.closed.promise).toBeUndefined();
    expect(recorder.bytes.toString()).toBe("request");
    expect(recorder.events).toEqual(["end", "close"]);
  });

  it("ended by us first still reads what the peer has to say", async () => {
    const { socket, peer } = await pair(accept);
    const recorder = record(socket);
    socket.resume();
    socket.end();
    peer.resume();
    await once(peer, "end");
    peer.end("late");
    await recorder.closed.promise;
    expect(recorder.bytes.toString()).toBe("late");
  });

  it("told to end and close does not wait for the peer", async () => {
    const { socket, peer } = await pair(accept);
    const recorder = record(socket);
    socket.write(Buffer.from("last"));
    socket.endAndClose();
    expect((await readAll(peer)).toString()).toBe("last");
    expect(await recorder.closed.promise).toBeUndefined();
  });

  it("reset by the peer closes with the reason", async () => {
    const { socket, peer } = await pair(accept);
    const recorder = record(socket);
    socket.resume();
    peer.resetAndDestroy();
    expect(await recorder.closed.promise).toMatchObject({ code: "ECONNRESET" });
    expect(socket.destroyed).toBe(true);
    expect(socket.write(Buffer.from("x"))).toBe(true);
    socket.end();
    socket.endAndClose();
    socket.destroy();
    expect(recorder.events).toEqual(["close"]);
  });

  it.each(["open", "peer ended"])("reset by us resets the peer: %s", async (before) => {
    const { socket, peer } = await pair(accept);
    const recorder = record(socket);
    socket.resume();
    if (before === "peer ended") {
      peer.end();
      await recorder.ended.promise;
    }
    const failed = once(peer, "error");
    peer.resume();
    socket.reset();
    socket.destroy();
    await recorder.closed.promise;
    expect(await failed).toMatchObject([{ code: "ECONNRESET" }]);
    expect(recorder.events.filter((event) => event === "close")).toEqual(["close"]);
  });

  it("reset while it sends its end closes all the same", async () => {
    const { socket } = await pair(accept);
    const recorder = record(socket);
    socket.end();
    socket.reset();
    await recorder.closed.promise;
    expect(recorder.events).toEqual(["close"]);
  });

  it("destroyed drops what waits and says so once", async () => {
    const { socket } = await pair(accept);
    const recorder = record(socket);
    while (socket.write(Buffer.alloc(SCRATCH_BYTES))) {
      // Until the kernel is full.
    }
    socket.destroy();
    await recorder.closed.promise;
    expect(recorder.events).toEqual(["close"]);
    expect(() => socket.fd).toThrow("closed");
    expect([socket.remote, socket.local]).toEqual([undefined, undefined]);
  });
});

describe("connecting for bytes", () => {
  it("gives a socket that works", async () => {
    const server = net.createServer((peer) => peer.end("hello")).listen(0, "127.0.0.1");
    await once(server, "listening");
    cleanups.push(() => server.close());
    const { port } = server.address() as net.AddressInfo;
    const { socket } = await new ByteDialer(undefined).connect({
      destination: { ip, port },
      timeoutMs: 1000,
    });
    const recorder = record(socket);
    socket.resume();
    await recorder.ended.promise;
    socket.end();
    await recorder.closed.promise;
    expect(recorder.bytes.toString()).toBe("hello");
  });

  it("waits for a peer that has no room for it yet", async () => {
    const fd = listenTcp(undefined, { address: { ip, port: 0 }, backlog: 0 });
    const destination = { ip, port: localPort(fd) };
    const dialer = new ByteDialer(undefined);
    const connect = () => dialer.connect({ destination, timeoutMs: 10_000 });
    const first = await connect();
    let connected = false;
    const second = connect().finally(() => (connected = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(connected).toBe(false);
    const server = net.createServer((peer) => peer.on("error", () => undefined).end("hello"));
    server.listen({ fd });
    cleanups.push(() => server.close());
    const { socket } = await second;
    const recorder = record(socket);
    socket.resume();
    await recorder.ended.promise;
    expect(recorder.bytes.toString()).toBe("hello");
    first.socket.destroy();
    socket.destroy();
  });

  it("gives up when the peer has no room for too long, and leaves nothing behind", async () => {
    const fd = listenTcp(undefined, { address: { ip, port: 0 }, backlog: 0 });
    cleanups.push(() => closeFd(fd));
    const destination = { ip, port: localPort(fd) };
    const dialer = new ByteDialer(undefined);
    const first = await dialer.connect({ destination, timeoutMs: 1_000 });
    const before = fdLoop().size;
    const second = dialer.connect({ destination, timeoutMs: 20 });
    expect(fdLoop().size).toBe(before + 1);
    await expect(second).rejects.toMatchObject({
      code: "ETIMEDOUT",
      message: `connect to 127.0.0.1:${destination.port} timed out`,
    });
    expect(fdLoop().size).toBe(before);
    dialer.close();
    first.socket.destroy();
  });

  it("fails with errno's name", async () => {
    const server = net.createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as net.AddressInfo;
    server.close();
    await once(server, "close");
    await expect(
      new ByteDialer(undefined).connect({ destination: { ip, port }, timeoutMs: 1000 }),
    ).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });
});
