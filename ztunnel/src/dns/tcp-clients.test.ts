import net from "node:net";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseIp } from "@ambit/common/net/ip.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { acceptBytes, type ByteListener } from "@ambit/common/sys/accept-bytes.ts";
import { listenTcp, localPort } from "@ambit/common/sys/sockets.ts";
import { TCP_CLIENTS_MAX, TcpClients } from "./tcp-clients.ts";
import { frameTcp, TcpMessages } from "./tcp-messages.ts";

let server: ByteListener;
let port: number;
let clients: TcpClients;
let asked: number;
/** What the answer to a query waits for. */
let gate: Promise<void>;
/** Of how many bytes the answers are. */
let answerBytes: number;
const opened: net.Socket[] = [];

beforeEach(() => {
  asked = 0;
  answerBytes = 20;
  gate = Promise.resolve();
  clients = new TcpClients(async (query) => {
    asked++;
    await gate;
    return Buffer.concat([query.subarray(0, 2), Buffer.alloc(answerBytes)]);
  }, systemClock);
  const fd = listenTcp(undefined, { address: { ip: parseIp("127.0.0.1")!, port: 0 } });
  port = localPort(fd);
  server = acceptBytes(fd, (socket) => clients.serve(socket));
});
afterEach(() => {
  clients.close();
  server.close();
  for (const socket of opened.splice(0)) socket.destroy();
});

async function connect(): Promise<net.Socket> {
  const socket = net.connect(port, "127.0.0.1");
  socket.on("error", () => undefined);
  opened.push(socket);
  await once(socket, "connect");
  return socket;
}

const query = (id: number) => frameTcp(Buffer.from([id >> 8, id & 0xff, 1, 2, 3]));
const turn = () => new Promise((resolve) => setImmediate(resolve));

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await turn();
}

/** Resolves once a number has stopped growing. */
async function standstill(read: () => number): Promise<void> {
  for (let before = -1; before !== read() || before === 0;) {
    before = read();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe("TCP clients", () => {
  it("are as many as the limit; one more is closed, and may come when another has left", async () => {
    const all = await Promise.all(Array.from({ length: TCP_CLIENTS_MAX }, connect));
    await until(() => clients.size === TCP_CLIENTS_MAX);
    const late = await connect();
    late.resume();
    await once(late, "close");
    expect(clients.size).toBe(TCP_CLIENTS_MAX);
    all[0]!.destroy();
    await until(() => clients.size === TCP_CLIENTS_MAX - 1);
    const next = await connect();
    next.write(query(1));
    await once(next, "data");
  });

  it("that ask and do not read are not read either, and get every answer once they do", async () => {
    const count = 2_000;
    answerBytes = 30_000;
    const socket = await connect();
    socket.pause();
    socket.write(Buffer.concat(Array.from({ length: count }, (_, id) => query(id))));
    await standstill(() => asked);
    expect(asked).toBeLessThanOrEqual(count);
    const ids: number[] = [];
    const messages = new TcpMessages((message) => ids.push(message.readUInt16BE(0)));
    socket.on("data", (chunk: Buffer) => messages.push(chunk)).resume();
    await until(() => ids.length === count);
    expect(ids).toEqual(Array.from({ length: count }, (_, id) => id));
  });
});

describe("the end", () => {
  it("of what a client asks lets it have its answers", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    gate = promise;
    const socket = await connect();
    const received: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => received.push(chunk));
    socket.end(query(7));
    await until(() => asked === 1);
    resolve();
    await once(socket, "close");
    expect(Buffer.concat(received).readUInt16BE(2)).toBe(7);
    expect(clients.size).toBe(0);
  });

  it("answers what was asked, then closes", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    gate = promise;
    const socket = await connect();
    const received: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => received.push(chunk));
    socket.write(query(7));
    await until(() => asked === 1);
    const drained = clients.drain();
    resolve();
    await drained;
    await once(socket, "close");
    expect(Buffer.concat(received).readUInt16BE(2)).toBe(7);
    expect(clients.size).toBe(0);
  });

  it("is at once when the pod is cut", async () => {
    gate = new Promise(() => {});
    const socket = await connect();
    socket.write(query(7));
    await until(() => asked === 1);
    const closed = once(socket.resume(), "close");
    clients.close();
    await closed;
  });
});
