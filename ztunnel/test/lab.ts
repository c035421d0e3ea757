// Two namespaces joined by a link, and real ztunnel processes in them. What a test needs besides —
// servers, clients, scrapes — runs in the test's own process, with sockets opened in the namespaces.
// Everything carries the process id in its name, and is removed on dispose.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { type NetnsHandle, openNetns } from "@ambit/common/sys/netns.ts";
import { connectTcp, listenTcp } from "@ambit/common/sys/sockets.ts";
import { Signal } from "@ambit/common/testing/signal.ts";

export type Side = "client" | "server" | "node";
const SIDES: readonly Side[] = ["client", "server", "node"];

export const CLIENT_IP = "10.78.0.1" as Ip;
export const SERVER_IP = "10.78.0.2" as Ip;
export const APP_PORT = 9000;
const EVERYWHERE: SocketAddress = { ip: "0.0.0.0" as Ip, port: APP_PORT };
const ECHO: SocketAddress = { ip: SERVER_IP, port: APP_PORT };

const MAIN = resolve(import.meta.dirname, "../src/main.ts");
/** What ztunnel's own sockets carry, so that they are not redirected. */
export const MARK = 1337;
const CONNECT_TIMEOUT_MS = 5_000;
/** Between two questions to another process, which cannot tell us by itself. */
const POLL_MS = 10;

/** Of the environment only these are handed on; the cache spares a program half of its start. */
const SHARED_ENV: NodeJS.ProcessEnv = {
  PATH: process.env["PATH"],
  NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"],
};

let labs = 0;

export class Lab implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ambit-lab-"));
  readonly #prefix = `ambit-lab-${process.pid}-${labs++}`;
  readonly #handles = new Map<Side, NetnsHandle>();
  readonly #servers: net.Server[] = [];
  readonly #ztunnels: Ztunnel[] = [];

  constructor() {
    const [client, server] = [this.netns("client"), this.netns("server")];
    for (const side of SIDES) {
      ip("netns", "add", this.netns(side));
      ip("-n", this.netns(side), "link", "set", "lo", "up");
      this.#handles.set(side, openNetns(`/run/netns/${this.netns(side)}`));
    }
    ip(
      "link",
      "add",
      "eth0",
      "netns",
      client,
      "type",
      "veth",
      "peer",
      "name",
      "eth0",
      "netns",
      server,
    );
    for (const [netns, address] of [
      [client, CLIENT_IP],
      [server, SERVER_IP],
    ] as const) {
      ip("-n", netns, "addr", "add", `${address}/24`, "dev", "eth0");
      ip("-n", netns, "link", "set", "eth0", "up");
      ip("-n", netns, "route", "add", "default", "dev", "eth0");
      execFileSync("ip", ["netns", "exec", netns, "nft", "-f", "-"], { input: REDIRECT });
    }
  }

  netns(side: Side): string {
    return `${this.#prefix}-${side}`;
  }

  fd(side: Side): number {
    return this.#handles.get(side)!.fd;
  }

  /** Writes a local mesh of both workloads, on the nodes given, and more YAML after it. */
  writeMesh(nodes: { client: string; server: string }, more = ""): string {
    const workload = (side: "client" | "server", address: string) =>
      `- { uid: c//Pod/default/${side}, name: ${side}, namespace: default, serviceAccount: ${side}, trustDomain: cluster.local, workloadIps: [${address}], protocol: HBONE, node: ${nodes[side]}, services: {} }`;
    const path = join(this.folder, "mesh.yaml");
    const workloads = [workload("client", CLIENT_IP), workload("server", SERVER_IP)];
    writeFileSync(path, `workloads:\n${workloads.join("\n")}\n${more}`);
    return path;
  }

  /** Starts a ztunnel process in a namespace: ours, or another `program`. */
  ztunnel(
    side: Side,
    env: Readonly<Record<string, string>>,
    program: readonly string[] = [process.execPath, MAIN],
  ): Ztunnel {
    const place = { netns: this.netns(side), netnsFd: this.fd(side), program };
    const ztunnel = new Ztunnel(place, {
      FAKE_CA: "true",
      FAKE_CA_FOLDER: join(this.folder, "ca"),
      ENABLE_ORIG_SRC: "false",
      PACKET_MARK: String(MARK),
      LOG_FORMAT: "json",
      ...env,
    });
    this.#ztunnels.push(ztunnel);
    return ztunnel;
  }

  /** The same for one workload of its own namespace. */
  dedicated(
    side: "client" | "server",
    env: Readonly<Record<string, string>>,
    program?: readonly string[],
  ): Ztunnel {
    const own = {
      PROXY_MODE: "dedicated",
      PROXY_WORKLOAD_INFO: `default/${side}/${side}`,
      NODE_NAME: `node-${side}`,
    };
    return this.ztunnel(side, { ...own, ...env }, program);
  }

  /** An echo server, by default in the server's namespace on every address. */
  echo(side: Side = "server", address: SocketAddress = EVERYWHERE): void {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => undefined);
      socket.pipe(socket);
    });
    server.listen({ fd: listenTcp(this.fd(side), { address }) });
    this.#servers.push(server);
  }

  /** As the node agent does when a pod leaves the mesh. */
  stopRedirecting(side: "client" | "server"): void {
    ip("netns", "exec", this.netns(side), "nft", "delete", "table", "inet", "lab");
  }

  /** From now on, what is sent to a side vanishes without an answer. */
  dropTo(side: "client" | "server"): void {
    const apply = ["netns", "exec", this.netns(side), "nft", "-f", "-"];
    execFileSync("ip", apply, { input: SILENCE });
  }

  /** A connection, by default from the client to the echo server, through whatever is in between. */
  async connect(side: Side = "client", destination = ECHO): Promise<net.Socket> {
    const dialed = connectTcp(this.fd(side), { destination, timeoutMs: CONNECT_TIMEOUT_MS });
    const { socket } = await dialed;
    socket.on("error", () => undefined);
    return socket.resume();
  }

  [Symbol.dispose](): void {
    for (const ztunnel of this.#ztunnels) ztunnel.kill();
    for (const server of this.#servers) server.close();
    for (const side of SIDES) {
      this.#handles.get(side)?.close();
      ip("netns", "del", this.netns(side));
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export type LogLine = Readonly<Record<string, unknown>>;

interface Place {
  readonly netns: string;
  readonly netnsFd: number;
  readonly program: readonly string[];
}

export class Ztunnel {
  readonly #child: ChildProcess;
  readonly #netnsFd: number;
  readonly #signal = new Signal();
  readonly lines: LogLine[] = [];
  /** What is not JSON: the one sentence of a failed start. */
  readonly plain: string[] = [];
  readonly exited: Promise<number | null>;

  constructor({ netns, netnsFd, program }: Place, env: Readonly<Record<string, string>>) {
    this.#netnsFd = netnsFd;
    this.#child = spawn("ip", ["netns", "exec", netns, ...program], {
      env: { ...SHARED_ENV, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      createInterface({ input: stream }).on("line", (line) => {
        if (line.startsWith("{")) this.lines.push(JSON.parse(line) as LogLine);
        else this.plain.push(line);
        this.#signal.changed();
      });
    }
    this.exited = once(this.#child, "close").then(([code]) => code as number | null);
  }

  /** The first log line with these fields, now or later. */
  async line(fields: LogLine): Promise<LogLine> {
    const matches = (line: LogLine) =>
      Object.entries(fields).every(([key, value]) => line[key] === value);
    await this.#signal.until(() => this.lines.some(matches));
    return this.lines.find(matches)!;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  kill(): void {
    this.signal("SIGKILL");
  }

  /** Asks one of its HTTP servers. */
  async http(port: number, path: string, method = "GET"): Promise<string> {
    const destination = { ip: "127.0.0.1" as Ip, port };
    const { socket } = await connectTcp(this.#netnsFd, {
      destination,
      timeoutMs: CONNECT_TIMEOUT_MS,
    });
    const request = http.request({
      path,
      method,
      createConnection: () => socket.resume(),
    });
    request.end();
    const [response] = (await once(request, "response")) as [http.IncomingMessage];
    return Buffer.concat(await response.toArray()).toString();
  }

  async json(path: string): Promise<unknown> {
    return JSON.parse(await this.http(15_000, path)) as unknown;
  }

  /** Asks until the answer is as wanted. */
  async untilJson(path: string, holds: (answer: unknown) => boolean): Promise<void> {
    while (!holds(await this.json(path))) await sleep(POLL_MS);
  }

  /** Waits until it says that it is ready. */
  async untilReady(): Promise<void> {
    const ended = this.exited.then((code) => {
      throw new Error(`ended with ${code}: ${this.plain.join("\n")}`);
    });
    const ready = () => this.http(15_021, "/healthz/ready").catch(() => "not listening");
    while ((await Promise.race([ready(), ended])) !== "ready\n") await sleep(POLL_MS);
  }

  /** Waits until this many connections are under way. */
  async untilConnections(count: number): Promise<void> {
    await this.untilJson("/connections", (list) => (list as unknown[]).length >= count);
  }

  /** The sum of a metric's samples whose labels include `labels`. */
  async metric(name: string, labels = ""): Promise<number> {
    const text = await this.http(15_020, "/metrics");
    return text
      .split("\n")
      .filter((line) => line.startsWith(`${name}{`) && line.includes(labels))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }
}

/** Writes, and reads until as much has come back, or so many bytes as given. */
export async function roundTrip(
  socket: net.Socket,
  message: string | Buffer,
  count = message.length,
): Promise<string> {
  if (socket.destroyed || socket.readableEnded) throw new Error("closed before anything was sent");
  let received = "";
  const answered = new Promise<string>((done, failed) => {
    const onData = (chunk: Buffer) => {
      received += chunk.toString();
      if (received.length < count) return;
      socket.off("data", onData);
      socket.off("close", onClose);
      socket.off("end", onClose);
      done(received);
    };
    const onClose = () => failed(new Error(`closed after ${received.length} bytes`));
    socket.on("data", onData);
    socket.once("close", onClose);
    socket.once("end", onClose);
  });
  socket.write(message);
  return answered;
}

/** Everything that comes until the other side is done. */
export async function untilEnd(socket: net.Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
  await ended(socket);
  socket.destroy();
  return text;
}

/** The other side is done: closed its half, or cut the connection. */
export function ended(socket: net.Socket): Promise<void> {
  if (socket.readableEnded || socket.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    socket.once("end", resolve);
    socket.once("close", () => resolve());
  });
}

function ip(...args: readonly string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });
}

const SILENCE = `
table inet silence {
  chain prerouting {
    type filter hook prerouting priority -300
    iifname != "lo" drop
  }
}
`;

/** What the node agent does for an enrolled pod, as far as a test needs it. */
const REDIRECT = `
table inet lab {
  chain output {
    type nat hook output priority -100
    meta mark ${MARK} return
    oifname "lo" return
    meta l4proto tcp redirect to :15001
  }
  chain prerouting {
    type nat hook prerouting priority -100
    meta mark ${MARK} return
    iifname "lo" return
    tcp dport != 15008 redirect to :15006
  }
}
`;
