// Bytes that leave with their CONNECT, before it is answered: kept or dropped as the answer is, and never
// sent to a peer that did not say that it takes them.

import { once } from "node:events";
import http2 from "node:http2";
import net from "node:net";
import { afterEach, expect, it } from "vitest";
import { asByteSocket } from "../net/net-byte-socket.ts";
import { systemClock as clock } from "../process/clock.ts";
import { HboneClientConnection } from "./client.ts";
import { DEFAULT_HBONE_SETTINGS as settings } from "./limits.ts";
import { type ConnectRequest, HboneServerConnection } from "./server.ts";

const request = { authority: "127.0.0.1:80", headers: {} };
const cleanups: (() => void)[] = [];
afterEach(() => cleanups.splice(0).forEach((cleanup) => cleanup()));

/** A client whose peer has answered once, so that its settings are known. */
async function clientOf(server: net.Server): Promise<HboneClientConnection> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const socket = net.connect((server.address() as net.AddressInfo).port, "127.0.0.1");
  await once(socket, "connect");
  cleanups.push(() => socket.destroy() && server.close());
  const client = new HboneClientConnection(asByteSocket(socket), { settings, clock });
  await client.openTunnel(request);
  return client;
}

function hboneServer(
  onConnect: (request: ConnectRequest) => void,
  streamWindowBytes = settings.streamWindowBytes,
): net.Server {
  return net.createServer((socket) => {
    const own = { ...settings, streamWindowBytes };
    const connection = new HboneServerConnection(asByteSocket(socket), {
      settings: own,
      clock,
      onConnect,
    });
    cleanups.push(() => connection.destroy());
  });
}

/** What an application behind the server got when it had `length` bytes; the client relays nothing. */
async function deliver(early: Buffer, streamWindowBytes?: number): Promise<Buffer> {
  const got = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  const app = net.createServer((socket) => {
    socket.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      const all = Buffer.concat(chunks);
      if (all.length >= early.length) got.resolve(all);
    });
  });
  app.listen(0, "127.0.0.1");
  await once(app, "listening");
  const onConnect = async (asked: ConnectRequest) => {
    const socket = net.connect((app.address() as net.AddressInfo).port, "127.0.0.1");
    cleanups.push(() => socket.destroy() && app.close());
    await once(socket, "connect");
    void asked.accept().relay(socket, { sent: 0, received: 0 });
  };
  const client = await clientOf(hboneServer((asked) => void onConnect(asked), streamWindowBytes));
  const { status } = await client.openTunnel({ ...request, early: () => early });
  expect(status).toBe(200);
  return got.promise;
}

it("reach the application with the tunnel that they came with", async () => {
  const early = Buffer.from("GET / HTTP/1.1\r\n\r\n");
  expect(await deliver(early)).toEqual(early);
});

it("reach it whole when they are more than the peer's window", async () => {
  const early = Buffer.alloc(200_000, "early");
  expect((await deliver(early, 65_536)).equals(early)).toBe(true);
});

it("are dropped when the answer is no, and the connection goes on", async () => {
  let refuse = false;
  const server = hboneServer((asked) => (refuse ? asked.reject(401) : void asked.accept()));
  const client = await clientOf(server);
  refuse = true;
  const early = () => Buffer.alloc(100_000, "secret");
  expect((await client.openTunnel({ ...request, early })).status).toBe(401);
  refuse = false;
  expect((await client.openTunnel(request)).status).toBe(200);
});

it("stay with the client when there are none yet", async () => {
  const client = await clientOf(hboneServer((asked) => void asked.accept()));
  expect((await client.openTunnel({ ...request, early: () => undefined })).status).toBe(200);
});

it("are not asked for when the peer did not say that it takes them", async () => {
  const server = http2.createServer();
  server.on("stream", (stream: http2.ServerHttp2Stream) => stream.respond({ ":status": 200 }));
  const client = await clientOf(server);
  let asked = false;
  const early = () => {
    asked = true;
    return undefined;
  };
  expect((await client.openTunnel({ ...request, early })).status).toBe(200);
  expect(asked).toBe(false);
});
