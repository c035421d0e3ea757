// Many connections that wait at once, and what they have sent by the time they are accepted.

import { once } from "node:events";
import net from "node:net";
import { afterEach, expect, it } from "vitest";
import type { ByteSocket } from "../net/byte-socket.ts";
import { parseIp } from "../net/ip.ts";
import { errorCode } from "../process/errors.ts";
import { uncaught } from "../testing/uncaught.ts";
import { acceptBytes, type ByteListener } from "./accept-bytes.ts";
import { readWaiting } from "./read-waiting.ts";
import { listenTcp, localPort } from "./sockets.ts";

const WAITING = 40;

let server: ByteListener | undefined;
afterEach(() => server?.close());

/** Returns the port. */
function listen(onSocket: (socket: ByteSocket) => void): number {
  const fd = listenTcp(undefined, { address: { ip: parseIp("127.0.0.1")!, port: 0 } });
  const port = localPort(fd);
  server = acceptBytes(fd, onSocket);
  return port;
}

it("accepts all that wait, each once, in fewer turns than there are connections", async () => {
  let turns = 0;
  const count = () => {
    turns++;
    if (accepted.length < WAITING) setImmediate(count);
    else all.resolve();
  };
  const accepted: ByteSocket[] = [];
  const all = Promise.withResolvers<void>();
  const port = listen((socket) => accepted.push(socket));
  const peers = Array.from({ length: WAITING }, () => net.connect(port, "127.0.0.1"));
  setImmediate(count);
  await all.promise;
  expect(turns).toBeLessThan(WAITING / 2);
  const ports = accepted.map(({ remote }) => remote?.port);
  expect(new Set(ports)).toEqual(new Set(peers.map(({ localPort }) => localPort)));
  for (const socket of accepted) socket.destroy();
});

it("reads what was sent before, once, and leaves the end to whoever reads on", async () => {
  const accepted = Promise.withResolvers<ByteSocket>();
  const peer = net.connect(listen(accepted.resolve), "127.0.0.1");
  const socket = await accepted.promise;
  expect(readWaiting(socket)).toBeUndefined();
  peer.end("hello");
  await once(peer, "finish");
  await expect.poll(() => readWaiting(socket)?.toString()).toBe("hello");
  expect(readWaiting(socket)).toBeUndefined();
  const ended = Promise.withResolvers<void>();
  socket.handler = {
    onBytes: () => expect.fail("nothing is left"),
    onEnd: ended.resolve,
    onWritable: () => undefined,
    onClose: () => undefined,
  };
  socket.resume();
  await ended.promise;
  socket.destroy();
  expect(readWaiting(socket)).toBeUndefined();
});

it("goes on with the others when a handler throws", async () => {
  using errors = uncaught();
  let accepted = 0;
  const port = listen((socket) => {
    socket.destroy();
    if (++accepted < 3) throw new Error(`of ${accepted}`);
  });
  const peers = Array.from({ length: 5 }, () => net.connect(port, "127.0.0.1"));
  for (const peer of peers) peer.on("error", () => undefined).resume();
  await expect.poll(() => accepted).toBe(5);
  expect(errors.messages).toEqual(["of 1", "of 2"]);
});

it("closed by who accepts, it accepts no more, and resets those that wait", async () => {
  const fd = listenTcp(undefined, { address: { ip: parseIp("127.0.0.1")!, port: 0 } });
  const peers = Array.from({ length: 3 }, () => net.connect(localPort(fd), "127.0.0.1"));
  const codes: (string | undefined)[] = [];
  for (const peer of peers) peer.on("error", (error) => codes.push(errorCode(error))).resume();
  await Promise.all(peers.map((peer) => once(peer, "connect")));
  let accepted = 0;
  const listener = acceptBytes(fd, (socket) => {
    accepted++;
    listener.close();
    listener.close();
    socket.destroy();
  });
  await expect.poll(() => codes).toEqual(["ECONNRESET", "ECONNRESET"]);
  expect(accepted).toBe(1);
});
