// A node, two pods and the links between them, as real namespaces, for tests that need root. Pods are
// routed by the node, as in the local runtime. Names carry the process id; `remove` takes all away.

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { type Ip, parseIp } from "@ambit/common/net/ip.ts";
import { type NetnsHandle, openNetns } from "@ambit/common/sys/netns.ts";
import { connectTcp, listenTcp } from "@ambit/common/sys/sockets.ts";

export interface TestPlace {
  readonly path: string;
  readonly netns: NetnsHandle;
  readonly ip4: Ip;
  readonly ip6: Ip;
}

export interface TestNetwork {
  readonly node: TestPlace;
  readonly pod: TestPlace;
  readonly other: TestPlace;
  /** Runs a shell script with $NODE, $POD and $OTHER as namespace names. */
  sh(script: string): string;
  remove(): void;
}

/** On the node's lo: something outside for pods to call. */
export const OUTSIDE = { ip4: ip("10.78.0.9"), ip6: ip("fd78::9") };

const CONNECT_TIMEOUT_MS = 3_000;

let counter = 0;

export function ip(text: string): Ip {
  const parsed = parseIp(text);
  if (parsed === undefined) throw new Error(`not an address: ${text}`);
  return parsed;
}

export function createTestNetwork(): TestNetwork {
  const prefix = `ambit-test-${process.pid}-${counter++}`;
  const env = { NODE: `${prefix}-node`, POD: `${prefix}-pod`, OTHER: `${prefix}-other` };
  const sh = (script: string) =>
    execFileSync("sh", ["-ec", script], {
      encoding: "utf8",
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
  sh(`
    for n in $NODE $POD $OTHER; do
      ip netns add $n; ip -n $n link set lo up
      # Link-local addresses too are usable at once: neighbour discovery would wait for them.
      ip netns exec $n sysctl -qw net.ipv6.conf.default.accept_dad=0
    done
    ip netns exec $NODE sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ip -n $NODE addr add ${OUTSIDE.ip4}/32 dev lo
    ip -n $NODE addr add ${OUTSIDE.ip6}/128 dev lo
    attach() {
      ip -n $NODE link add v$2 type veth peer name eth0 netns $1
      ip -n $1 link set eth0 up; ip -n $NODE link set v$2 up
      ip -n $NODE addr add 10.77.$2.1/24 dev v$2
      ip -n $NODE addr add fd77:$2::1/64 dev v$2 nodad
      ip -n $1 addr add 10.77.$2.2/24 dev eth0
      ip -n $1 addr add fd77:$2::2/64 dev eth0 nodad
      ip -n $1 route add default via 10.77.$2.1
      ip -n $1 -6 route add default via fd77:$2::1
    }
    attach $POD 1; attach $OTHER 2`);
  const place = (name: string, subnet: number, host: number): TestPlace => {
    const path = `/run/netns/${name}`;
    const ip4 = ip(`10.77.${subnet}.${host}`);
    return { path, netns: openNetns(path), ip4, ip6: ip(`fd77:${subnet}::${host}`) };
  };
  const network = {
    node: place(env.NODE, 1, 1),
    pod: place(env.POD, 1, 2),
    other: place(env.OTHER, 2, 2),
  };
  const remove = () => {
    for (const { netns } of Object.values(network)) netns.close();
    sh("for n in $NODE $POD $OTHER; do ip netns del $n || true; done");
  };
  return { ...network, sh, remove };
}

/** A server in a namespace whose next connections can be awaited. */
export class TestServer implements AsyncDisposable {
  readonly #server = net.createServer({ allowHalfOpen: true });
  readonly #waiting: net.Socket[] = [];
  readonly #all: net.Socket[] = [];
  #wake = () => {};
  /** The listening socket's. */
  fd = -1;

  static async start(place: TestPlace, address: Ip, port: number, mark?: number) {
    const options = { address: { ip: address, port }, transparent: "best-effort" } as const;
    return TestServer.adopt(
      listenTcp(place.netns.fd, mark === undefined ? options : { ...options, mark }),
    );
  }

  /** Of a socket that listens already, and is the server's from now on. */
  static async adopt(fd: number) {
    const server = new TestServer();
    server.fd = fd;
    server.#server.listen({ fd });
    server.#server.on("connection", (socket) => {
      socket.on("error", () => {});
      server.#waiting.push(socket);
      server.#all.push(socket);
      server.#wake();
    });
    await once(server.#server, "listening");
    return server;
  }

  get connectionCount(): number {
    return this.#all.length;
  }

  async next(): Promise<net.Socket> {
    while (this.#waiting.length === 0) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    return this.#waiting.shift()!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#all) socket.destroy();
    const closed = once(this.#server, "close");
    this.#server.close();
    await closed;
  }
}

/** Connects as an application of `place` would, or as a proxy when `mark` is given. */
export async function dial(
  place: TestPlace,
  address: Ip,
  port: number,
  extra: { readonly mark?: number; readonly spoof?: Ip } = {},
): Promise<net.Socket> {
  const { socket } = await connectTcp(place.netns.fd, {
    destination: { ip: address, port },
    timeoutMs: CONNECT_TIMEOUT_MS,
    ...(extra.mark !== undefined && { mark: extra.mark }),
    ...(extra.spoof !== undefined && { spoof: { ip: extra.spoof, port: 0 } }),
  });
  socket.on("error", () => {});
  return socket;
}

/** Sends a word each way; resolves when both arrived. */
export async function talk(a: net.Socket, b: net.Socket): Promise<void> {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    to.resume();
    const arrived = once(to, "data");
    from.write("word");
    await arrived;
  }
}
