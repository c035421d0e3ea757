import { createHash } from "node:crypto";
import { once } from "node:events";
import http2 from "node:http2";
import net from "node:net";
import { duplexPair } from "node:stream";
import { afterEach, describe, expect, it } from "vitest";
import { asByteSocket } from "../net/net-byte-socket.ts";
import { systemClock } from "../process/clock.ts";
import { parseIp } from "../net/ip.ts";
import { FakeClock } from "../testing/fake-clock.ts";
import { HboneClientConnection } from "./client.ts";
import { DEFAULT_HBONE_SETTINGS } from "./limits.ts";
import { type PoolKey, TunnelPool } from "./pool.ts";
import { relaySockets } from "./relay.ts";
import { type ConnectRequest, HboneServerConnection } from "./server.ts";

const settings = DEFAULT_HBONE_SETTINGS;
const clock = systemClock;
const HOUR_MS = 3_600_000;
const cleanups: (() => void)[] = [];
afterEach(() => cleanups.splice(0).forEach((cleanup) => cleanup()));

async function listen(onSocket: (socket: net.Socket) => void): Promise<number> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    onSocket(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return (server.address() as net.AddressInfo).port;
}

async function dial(port: number): Promise<net.Socket> {
  const socket = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
  await once(socket, "connect");
  cleanups.push(() => socket.destroy());
  return socket;
}

/** Serves HBONE; each CONNECT is relayed to the port its authority names. */
async function hboneServer(onConnect?: (request: ConnectRequest) => void): Promise<number> {
  return listen((socket) => {
    const connection = new HboneServerConnection(asByteSocket(socket), {
      settings,
      clock,
      onConnect: onConnect ?? ((request) => void relayToAuthority(request)),
    });
    cleanups.push(() => connection.destroy());
  });
}

async function relayToAuthority(request: ConnectRequest): Promise<void> {
  const app = await dial(Number(request.authority!.split(":")[1]));
  await request.accept({ baggage: "service.name=b" }).relay(app, { sent: 0, received: 0 });
}

async function hboneClient(port: number): Promise<HboneClientConnection> {
  const connection = new HboneClientConnection(asByteSocket(await dial(port)), { settings, clock });
  cleanups.push(() => connection.close());
  return connection;
}

/** A local listener whose connections are tunnelled to `appPort`. */
async function tunnelEntrance(
  client: HboneClientConnection,
  appPort: number,
  counters = { sent: 0, received: 0 },
) {
  return listen((socket) => {
    socket.pause();
    void client
      .openTunnel({ authority: `127.0.0.1:${appPort}`, headers: {} })
      .then(({ stream }) => stream.relay(socket, counters));
  });
}

async function readAll(socket: net.Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(socket, "end");
  return Buffer.concat(chunks);
}

const digest = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

describe("an HBONE tunnel", () => {
  it("carries bytes again after an idle hour, for which it set no timer twice", async () => {
    const idle = new FakeClock();
    const [near, far] = duplexPair();
    const appPort = await listen((app) => app.pipe(app));
    const onConnect = (request: ConnectRequest) => void relayToAuthority(request);
    const server = new HboneServerConnection(asByteSocket(far), {
      settings,
      clock: idle,
      onConnect,
    });
    const client = new HboneClientConnection(asByteSocket(near), { settings, clock: idle });
    const entrance = await dial(await tunnelEntrance(client, appPort));
    const echoed = async (text: string) => {
      entrance.write(text);
      return String((await once(entrance, "data"))[0]);
    };
    expect(await echoed("before")).toBe("before");
    const timers = idle.pendingTimers;
    await idle.advance(HOUR_MS);
    expect(idle.pendingTimers).toBe(timers);
    expect(await echoed("after")).toBe("after");
    entrance.end();
    await once(entrance, "close");
    client.close();
    server.destroy();
    await idle.advance(HOUR_MS);
    expect(idle.pendingTimers).toBe(0);
  });

  it("carries 64 MiB each way at once, intact", async () => {
    const payload = Buffer.alloc(64 << 20, "0123456789abcdef-");
    const appPort = await listen((app) => {
      app.write(payload);
      app.on("data", () => undefined);
      app.on("end", () => app.end());
    });
    const echoPort = await listen(
      (app) => void readAll(app).then((bytes) => app.end(digest(bytes))),
    );
    const client = await hboneClient(await hboneServer());
    const download = await dial(await tunnelEntrance(client, appPort));
    const upload = await dial(await tunnelEntrance(client, echoPort));
    upload.end(payload);
    const answer = readAll(upload);
    let received = 0;
    const hash = createHash("sha256");
    download.on("data", (chunk: Buffer) => {
      received += chunk.length;
      hash.update(chunk);
      if (received === payload.length) download.end();
    });
    await once(download, "end");
    expect(hash.digest("hex")).toBe(digest(payload));
    expect((await answer).toString()).toBe(digest(payload));
  });

  it("passes half-close on, and counts both directions", async () => {
    const appPort = await listen(
      (app) => void readAll(app).then((bytes) => app.end(`got ${bytes.length}`)),
    );
    const counters = { sent: 0, received: 0 };
    const socket = await dial(
      await tunnelEntrance(await hboneClient(await hboneServer()), appPort, counters),
    );
    socket.end("hello");
    expect((await readAll(socket)).toString()).toBe("got 5");
    expect(counters).toEqual({ sent: 5, received: 5 });
  });

  it("delivers what the server says first, and what the client sent before the answer", async () => {
    const appPort = await listen((app) => {
      app.write("220 ready\n");
      app.on("data", (bytes: Buffer) => app.end(bytes));
    });
    const socket = await dial(
      await tunnelEntrance(await hboneClient(await hboneServer()), appPort),
    );
    socket.write("early");
    expect((await readAll(socket)).toString()).toBe("220 ready\nearly");
  });

  it("reports the status and headers of an answer", async () => {
    const client = await hboneClient(await hboneServer((request) => request.reject(401)));
    const { status } = await client.openTunnel({ authority: "10.0.0.1:80", headers: {} });
    expect(status).toBe(401);
    expect(client.activeStreams).toBe(0);
  });

  it("turns an application's reset into an end of stream", async () => {
    const appPort = await listen((app) => app.on("data", () => app.resetAndDestroy()));
    const socket = await dial(
      await tunnelEntrance(await hboneClient(await hboneServer()), appPort),
    );
    socket.write("x");
    expect((await readAll(socket)).toString()).toBe("");
  });

  it("stops reading a fast sender when the receiver stands still", async () => {
    let stalled: net.Socket | undefined;
    const appPort = await listen((app) => void (stalled = app.pause()));
    const counters = { sent: 0, received: 0 };
    const socket = await dial(
      await tunnelEntrance(await hboneClient(await hboneServer()), appPort, counters),
    );
    const chunk = Buffer.alloc(1 << 20);
    let written = 0;
    while (written < 64 << 20 && (socket.write(chunk) || (await drained(socket))))
      written += chunk.length;
    expect(written).toBeLessThan(40 << 20);
    const stoppedAt = counters.sent;
    expect(stoppedAt).toBeLessThan(24 << 20);
    stalled!.resume();
    socket.end();
    await once(stalled!, "end");
    expect(counters.sent).toBeGreaterThan(stoppedAt);
  });

  it("lets streams in flight finish after drain, and opens no new one", async () => {
    const connections: HboneServerConnection[] = [];
    const port = await listen((socket) => {
      connections.push(
        new HboneServerConnection(asByteSocket(socket), {
          settings,
          clock,
          onConnect: (request) => void relayToAuthority(request),
        }),
      );
    });
    const appPort = await listen((app) => app.pipe(app));
    const client = await hboneClient(port);
    const socket = await dial(await tunnelEntrance(client, appPort));
    socket.write("a");
    await once(socket, "data");
    connections[0]!.drain();
    await expect.poll(() => client.ready).toBe(false);
    socket.end("b");
    expect((await readAll(socket)).toString()).toBe("b");
    await expect
      .poll(() =>
        client
          .openTunnel({ authority: "127.0.0.1:1", headers: {} })
          .catch((error: Error) => error.message),
      )
      .toContain("closing");
  });
});

/** False when no drain comes: both ends of the tunnel are full. */
async function drained(socket: net.Socket): Promise<boolean> {
  const full = new Promise<false>((resolve) => setTimeout(() => resolve(false), 500));
  return Promise.race([once(socket, "drain").then(() => true), full]);
}

describe("against node:http2 as an independent peer", () => {
  it("its client opens a CONNECT through our server", async () => {
    const appPort = await listen((app) => app.pipe(app));
    const session = http2.connect(`http://127.0.0.1:${await hboneServer()}`);
    cleanups.push(() => session.destroy());
    const stream = session.request({ ":method": "CONNECT", ":authority": `127.0.0.1:${appPort}` });
    const [headers] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
    expect(headers).toMatchObject({ ":status": 200, baggage: "service.name=b" });
    stream.end(Buffer.alloc(1 << 20, "x"));
    let bytes = 0;
    for await (const chunk of stream) bytes += (chunk as Buffer).length;
    expect(bytes).toBe(1 << 20);
  });

  it("our client opens a CONNECT through its server", async () => {
    const server = http2.createServer();
    server.on("stream", (stream: http2.ServerHttp2Stream, headers) => {
      stream.respond({ ":status": 200, "x-authority": headers[":authority"] });
      stream.pipe(stream);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    cleanups.push(() => server.close());
    const client = await hboneClient((server.address() as net.AddressInfo).port);
    const opened = await client.openTunnel({
      authority: "10.0.0.1:80",
      headers: { forwarded: 'for="10.0.0.2:1"' },
    });
    expect([opened.status, opened.headers.get("x-authority")]).toEqual([200, "10.0.0.1:80"]);
    const entrance = await listen(
      (socket) => void opened.stream.relay(socket, { sent: 0, received: 0 }),
    );
    const socket = await dial(entrance);
    socket.end(Buffer.alloc(3 << 20, "y"));
    expect((await readAll(socket)).length).toBe(3 << 20);
    client.close();
  });
});

describe("the tunnel pool", () => {
  const key: PoolKey = {
    sourceIdentity: "spiffe://td/ns/a/sa/b",
    allowedIdentities: ["spiffe://td/ns/c/sa/d"],
    nextHop: { ip: parseIp("127.0.0.1")!, port: 1 },
    sourceIp: parseIp("127.0.0.2")!,
  };

  async function pool(streamsPerConnectionMax: number) {
    const port = await hboneServer((request) => request.accept());
    let dials = 0;
    const made = new TunnelPool({
      streamsPerConnectionMax,
      unusedReleaseMs: 60_000,
      clock,
      dial: async (_, closed) => {
        dials++;
        return new HboneClientConnection(asByteSocket(await dial(port)), {
          settings,
          clock,
          onClose: closed,
        });
      },
    });
    cleanups.push(() => made.close());
    return { pool: made, dials: () => dials };
  }
  const request = { authority: "10.0.0.1:80", headers: {} };

  it("shares one connection among many concurrent tunnels of a key", async () => {
    const { pool: made, dials } = await pool(100);
    await Promise.all(Array.from({ length: 50 }, () => made.openTunnel(key, request)));
    expect(dials()).toBe(1);
  });

  it("keeps keys apart", async () => {
    const { pool: made, dials } = await pool(100);
    await made.openTunnel(key, request);
    await made.openTunnel({ ...key, sourceIdentity: "spiffe://td/ns/a/sa/other" }, request);
    await made.openTunnel({ ...key, allowedIdentities: [] }, request);
    await made.openTunnel({ ...key, workloadUid: "other" }, request);
    expect(dials()).toBe(4);
  });

  it("retires a connection that reaches its stream cap", async () => {
    const { pool: made, dials } = await pool(2);
    for (let i = 0; i < 5; i++) await made.openTunnel(key, request);
    expect(dials()).toBe(3);
    expect(made.pooledConnections).toBe(1);
  });

  it("cuts the tunnels of a workload that is gone", async () => {
    const { pool: made } = await pool(100);
    await made.openTunnel(key, request);
    const { stream } = await made.openTunnel({ ...key, workloadUid: "gone" }, request);
    made.closeWhere(({ workloadUid }) => workloadUid === "gone");
    expect(stream.closed).toBe(true);
    await expect.poll(() => made.liveConnections).toBe(1);
  });
});

describe("relaying two sockets", () => {
  it("keeps half-close and bytes", async () => {
    const appPort = await listen((app) => void readAll(app).then((bytes) => app.end(bytes)));
    const counters = { sent: 0, received: 0 };
    const finished = Promise.withResolvers<unknown>();
    const entrance = await listen((socket) => {
      socket.pause();
      void dial(appPort)
        .then((app) => relaySockets(socket, app, counters))
        .then(finished.resolve);
    });
    const socket = await dial(entrance);
    socket.end(Buffer.alloc(5 << 20, "z"));
    expect((await readAll(socket)).length).toBe(5 << 20);
    expect(await finished.promise).toEqual({});
    expect(counters).toEqual({ sent: 5 << 20, received: 5 << 20 });
  });
});
