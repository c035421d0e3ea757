// Many connections that wait at once, and what they have sent by the time they are accepted.

import { once } from "node:events";
import net from "node:net";
import { expect, it } from "vitest";
import type { ByteSocket } from "../net/byte-socket.ts";
import { acceptBytes } from "./accept-bytes.ts";
import { readWaiting } from "./read-waiting.ts";

const WAITING = 40;

async function listen(onSocket: (socket: ByteSocket) => void): Promise<net.Server> {
  const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  acceptBytes(server, onSocket);
  return server;
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
  const server = await listen((socket) => accepted.push(socket));
  const { port } = server.address() as net.AddressInfo;
  const peers = Array.from({ length: WAITING }, () => net.connect(port, "127.0.0.1"));
  setImmediate(count);
  await all.promise;
  expect(turns).toBeLessThan(WAITING / 2);
  const ports = accepted.map(({ remote }) => remote?.port);
  expect(new Set(ports)).toEqual(new Set(peers.map(({ localPort }) => localPort)));
  for (const socket of accepted) socket.destroy();
  server.close();
});

it("reads what was sent before, once, and leaves the end to whoever reads on", async () => {
  const accepted = Promise.withResolvers<ByteSocket>();
  const server = await listen(accepted.resolve);
  const peer = net.connect((server.address() as net.AddressInfo).port, "127.0.0.1");
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
  server.close();
});
