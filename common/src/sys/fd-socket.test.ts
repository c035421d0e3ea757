// What a socket must do because the kernel tells it of changes only, and once: nothing may be lost while
// it is paused, nor one socket keep the others waiting. What all byte sockets do is in byte-socket.test.ts.

import { once } from "node:events";
import net from "node:net";
import { Worker } from "node:worker_threads";
import { afterEach, expect, it } from "vitest";
import type { ByteSocket, ByteSocketHandler } from "../net/byte-socket.ts";
import { parseIp } from "../net/ip.ts";
import { readBuffer, SCRATCH_BYTES } from "../net/scratch.ts";
import { errorCode } from "../process/errors.ts";
import { atTurnEnd } from "../process/turn-end.ts";
import { uncaught } from "../testing/uncaught.ts";
import { acceptBytes } from "./accept-bytes.ts";
import { fdLoop } from "./fd-loop.ts";
import { READS_PER_TURN } from "./fd-socket.ts";
import { call } from "./libc.ts";
import { listenTcp, localPort, socketFd } from "./sockets.ts";

const MSG_OOB = 1;

const cleanups: (() => void)[] = [];
afterEach(() => cleanups.splice(0).forEach((cleanup) => cleanup()));

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}

async function pair(): Promise<{ socket: ByteSocket; peer: net.Socket }> {
  const fd = listenTcp(undefined, { address: { ip: parseIp("127.0.0.1")!, port: 0 } });
  const port = localPort(fd);
  const { promise: accepted, resolve } = Promise.withResolvers<ByteSocket>();
  const server = acceptBytes(fd, resolve);
  const peer = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  peer.on("error", () => undefined);
  const [socket] = await Promise.all([accepted, once(peer, "connect")]);
  server.close();
  cleanups.push(() => {
    peer.destroy();
    socket.destroy();
  });
  return { socket, peer };
}

/** Writes down what it hears; a test overrides what it needs. */
class Log implements ByteSocketHandler {
  readonly heard: string[] = [];
  bytes = 0;

  constructor(parts: Partial<ByteSocketHandler> = {}) {
    Object.assign(this, parts);
  }

  onBytes(bytes: Buffer): void {
    this.bytes += bytes.length;
    this.heard.push(bytes.length < 20 ? bytes.toString() : "bytes");
  }

  onEnd(): void {
    this.heard.push("end");
  }

  onWritable(): void {
    this.heard.push("writable");
  }

  onClose(error?: Error): void {
    this.heard.push(errorCode(error) ?? "close");
  }
}

function log(socket: ByteSocket, parts: Partial<ByteSocketHandler> = {}): Log {
  const handler = new Log(parts);
  socket.handler = handler;
  return handler;
}

it("paused with bytes waiting and their end behind them, it reads both once it is resumed", async () => {
  const { socket, peer } = await pair();
  const { heard } = log(socket);
  socket.resume();
  peer.write("a");
  await expect.poll(() => heard).toEqual(["a"]);
  socket.pause();
  peer.end("b");
  await once(peer, "finish");
  await turns(5);
  expect(heard).toEqual(["a"]);
  socket.resume();
  expect(heard).toEqual(["a"]);
  await turn();
  expect(heard).toEqual(["a", "b", "end"]);
});

it("paused while it reads, it keeps the rest for later", async () => {
  const { socket, peer } = await pair();
  const handler = log(socket, {
    onBytes: (bytes) => {
      handler.bytes += bytes.length;
      socket.pause();
      setTimeout(() => socket.resume(), 1);
    },
  });
  const payload = Buffer.alloc(readBuffer.length * 3 + 1);
  socket.resume();
  peer.end(payload);
  await expect.poll(() => handler.heard).toEqual(["end"]);
  expect(handler.bytes).toBe(payload.length);
});

it("paused and resumed while it reads, it reads nothing twice and nothing too early", async () => {
  const { socket, peer } = await pair();
  let depth = 0;
  const handler = log(socket, {
    onBytes: (bytes) => {
      expect(++depth).toBe(1);
      handler.bytes += bytes.length;
      socket.pause();
      socket.resume();
      depth--;
    },
  });
  socket.resume();
  peer.end(Buffer.alloc(SCRATCH_BYTES * 8));
  await expect.poll(() => handler.heard).toEqual(["end"]);
  expect(handler.bytes).toBe(SCRATCH_BYTES * 8);
});

it("reset while it is paused, it says so once it is resumed, after what had come before", async () => {
  const { socket, peer } = await pair();
  const { heard } = log(socket);
  socket.resume();
  peer.write("a");
  await expect.poll(() => heard).toEqual(["a"]);
  socket.pause();
  peer.resetAndDestroy();
  await once(peer, "close");
  await turns(5);
  expect([heard, socket.destroyed]).toEqual([["a"], false]);
  socket.resume();
  await expect.poll(() => heard).toEqual(["a", "ECONNRESET"]);
});

it("reset while the kernel is full, it closes although it is paused", async () => {
  const { socket, peer } = await pair();
  const { heard } = log(socket);
  while (socket.write(Buffer.alloc(SCRATCH_BYTES))) {
    // Until the kernel is full.
  }
  peer.resetAndDestroy();
  await expect.poll(() => heard).toEqual(["ECONNRESET"]);
});

it("has sent all that waits before its end, and reads on", async () => {
  const { socket, peer } = await pair();
  const { heard } = log(socket);
  let written = 0;
  do written += SCRATCH_BYTES;
  while (socket.write(Buffer.alloc(SCRATCH_BYTES)));
  socket.end();
  socket.resume();
  let received = 0;
  peer.on("data", (chunk: Buffer) => (received += chunk.length));
  await once(peer, "end");
  expect(received).toBe(written);
  peer.end("late");
  await expect.poll(() => heard).toEqual(["late", "end", "close"]);
});

it("reads on behind urgent data, where a read stops short", async () => {
  const { socket, peer } = await pair();
  const { heard } = log(socket);
  socket.resume();
  const fd = socketFd(peer);
  const urgent = Buffer.from("abc!");
  call("send", "", fd, urgent, urgent.length, MSG_OOB);
  call("send", "", fd, Buffer.from("def"), 3, 0);
  await expect.poll(() => heard.join("")).toBe("abcdef");
});

it("lets others have their turn although its buffer is always full", async () => {
  const [busy, other] = [await pair(), await pair()];
  const perTurn: number[] = [0];
  const count = () => {
    perTurn.push(0);
    if (!done) atTurnEnd(count);
  };
  let done = false;
  log(busy.socket, {
    onBytes: () => void perTurn[perTurn.length - 1]!++,
    onEnd: () => (done = true),
  });
  const answer = Promise.withResolvers<boolean>();
  log(other.socket, { onBytes: () => answer.resolve(done) });
  busy.peer.end(Buffer.alloc(READS_PER_TURN * readBuffer.length * 20));
  await turns(50);
  busy.socket.resume();
  other.socket.resume();
  other.peer.write("x");
  atTurnEnd(count);
  expect(await answer.promise).toBe(false);
  await expect.poll(() => done).toBe(true);
  // An event and what was asked for can come within one turn.
  expect(Math.max(...perTurn)).toBeLessThanOrEqual(2 * READS_PER_TURN);
});

it("what a handler throws is an uncaught exception, and the socket goes on", async () => {
  const { socket, peer } = await pair();
  let thrown = false;
  const { heard } = log(socket, {
    onBytes: (bytes) => {
      heard.push(bytes.toString());
      if (thrown) return;
      thrown = true;
      throw new Error("of the handler");
    },
  });
  using errors = uncaught();
  socket.resume();
  peer.write("a");
  await expect.poll(() => errors.messages).toEqual(["of the handler"]);
  peer.end("b");
  await expect.poll(() => heard).toEqual(["a", "b", "end"]);
});

it("closed by the handler of another in the same wake, it hears nothing more", async () => {
  const pairs = [await pair(), await pair()];
  const logs = pairs.map(({ socket }, i) => {
    const handler: Log = log(socket, {
      onBytes: () => {
        handler.heard.push("bytes");
        pairs[1 - i]!.socket.destroy();
      },
    });
    return handler;
  });
  for (const { socket } of pairs) socket.resume();
  for (const { peer } of pairs) call("send", "", socketFd(peer), Buffer.from("x"), 1, 0);
  await expect.poll(() => logs.flatMap(({ heard }) => heard).length).toBe(2);
  expect(logs.map(({ heard }) => heard.join()).sort()).toEqual(["bytes", "close"]);
});

it("tells that it is closed after whoever closed it has returned", async () => {
  const { socket } = await pair();
  const { heard } = log(socket);
  socket.destroy();
  expect(heard).toEqual([]);
  await Promise.resolve();
  expect(heard).toEqual(["close"]);
});

it("keeps nothing in the loop once it is closed", async () => {
  const before = fdLoop().size;
  const { socket } = await pair();
  log(socket);
  socket.resume();
  socket.resume();
  expect(fdLoop().size).toBe(before + 1);
  socket.destroy();
  expect(fdLoop().size).toBe(before);
});

it("works in a thread, which ends when nothing is left to watch", async () => {
  const worker = new Worker(new URL("../testing/echo-once.ts", import.meta.url));
  const [port] = (await once(worker, "message")) as [number];
  const ended = once(worker, "exit");
  const peer = net.connect(port, "127.0.0.1");
  const chunks: Buffer[] = [];
  peer.on("data", (chunk: Buffer) => chunks.push(chunk));
  peer.end("hello");
  await once(peer, "close");
  expect(Buffer.concat(chunks).toString()).toBe("hello");
  expect(await ended).toEqual([0]);
});
