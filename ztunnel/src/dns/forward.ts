// Forwarding: a query goes on, byte for byte, to the resolvers of ztunnel's own resolv.conf, from a
// socket in the pod's namespace; the answer comes back untouched.

import dgram from "node:dgram";
import { readFileSync } from "node:fs";
import type net from "node:net";
import type { Clock } from "@ambit/common/process/clock.ts";
import { ipFamily, parseIp, type Ip } from "@ambit/common/net/ip.ts";
import { connectTcp, udpSocket } from "@ambit/common/sys/sockets.ts";

const DNS_SERVER_PORT = 53;
/** Per upstream try; glibc's default patience is 5 s for the whole. */
const TRY_TIMEOUT_MS = 2_000;
const UPSTREAMS_MAX = 3;
/** Queries of one pod in flight; beyond it the client is told SERVFAIL. */
export const FORWARDS_IN_FLIGHT_MAX = 512;

export interface ForwarderOptions {
  readonly netnsFd: number | undefined;
  readonly mark: number | undefined;
  readonly clock: Clock;
  readonly upstreams: readonly Ip[];
  /** Aborts when the pod is cut: nothing more is opened in its namespace, and nobody waits. */
  readonly forced: AbortSignal;
}

/** The nameservers of a resolv.conf, at most three, as resolvers take them. */
export function readNameservers(path = "/etc/resolv.conf"): Ip[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return [];
  }
  const servers = [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].flatMap(
    ([, ip]) => parseIp(ip!) ?? [],
  );
  return servers.slice(0, UPSTREAMS_MAX);
}

export class Forwarder {
  readonly #options: ForwarderOptions;
  #inFlight = 0;

  constructor(options: ForwarderOptions) {
    this.#options = options;
  }

  /** The upstream's answer to `query`, as it came; undefined when none answered in time. */
  async forward(query: Buffer, transport: "udp" | "tcp"): Promise<Buffer | undefined> {
    if (this.#inFlight >= FORWARDS_IN_FLIGHT_MAX) return undefined;
    this.#inFlight++;
    try {
      for (const upstream of this.#options.upstreams) {
        if (this.#options.forced.aborted) return undefined;
        const ask =
          transport === "udp" ? this.#askUdp(query, upstream) : this.#askTcp(query, upstream);
        const answer = await ask.catch(() => undefined);
        if (answer !== undefined) return answer;
      }
      return undefined;
    } finally {
      this.#inFlight--;
    }
  }

  #askUdp(query: Buffer, upstream: Ip): Promise<Buffer | undefined> {
    const { netnsFd, mark, clock, forced } = this.#options;
    const family = ipFamily(upstream);
    const fd = udpSocket(netnsFd, {
      address: { ip: (family === 4 ? "0.0.0.0" : "::") as Ip, port: 0 },
      ...(mark !== undefined && { mark }),
    });
    const socket = dgram.createSocket(family === 4 ? "udp4" : "udp6");
    return new Promise((resolve) => {
      const finish = (answer: Buffer | undefined) => {
        timer.cancel();
        forced.removeEventListener("abort", onForce);
        socket.close();
        resolve(answer);
      };
      const onForce = () => finish(undefined);
      const timer = clock.after(TRY_TIMEOUT_MS, onForce);
      forced.addEventListener("abort", onForce);
      socket.on("error", () => finish(undefined));
      socket.on("message", (answer, { address }) => {
        const sameId = answer.length >= 2 && answer.readUInt16BE(0) === query.readUInt16BE(0);
        if (sameId && parseIp(address) === upstream) finish(answer);
      });
      socket.bind({ fd }, () => socket.send(query, DNS_SERVER_PORT, upstream));
    });
  }

  async #askTcp(query: Buffer, upstream: Ip): Promise<Buffer | undefined> {
    const { netnsFd, mark } = this.#options;
    const { socket } = await connectTcp(netnsFd, {
      destination: { ip: upstream, port: DNS_SERVER_PORT },
      timeoutMs: TRY_TIMEOUT_MS,
      ...(mark !== undefined && { mark }),
    });
    return readOneMessage(socket, query, this.#options.clock);
  }
}

function readOneMessage(
  socket: net.Socket,
  query: Buffer,
  clock: Clock,
): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const reader = new TcpMessages((answer) => finish(answer));
    const finish = (answer: Buffer | undefined) => {
      timer.cancel();
      socket.destroy();
      resolve(answer);
    };
    const timer = clock.after(TRY_TIMEOUT_MS, () => finish(undefined));
    socket.on("error", () => finish(undefined));
    socket.on("close", () => finish(undefined));
    socket.on("data", (chunk: Buffer) => reader.push(chunk));
    socket.write(frameTcp(query));
    socket.resume();
  });
}

/** DNS over TCP: two length bytes before each message (RFC 1035 §4.2.2). */
export function frameTcp(message: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(2 + message.length);
  frame.writeUInt16BE(message.length, 0);
  message.copy(frame, 2);
  return frame;
}

/** Cuts a TCP stream into DNS messages. Holds at most one message, so at most 64 KiB. */
export class TcpMessages {
  readonly #onMessage: (message: Buffer) => void;
  #held: Buffer = Buffer.alloc(0);

  constructor(onMessage: (message: Buffer) => void) {
    this.#onMessage = onMessage;
  }

  push(chunk: Buffer): void {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    while (this.#held.length >= 2) {
      const end = 2 + this.#held.readUInt16BE(0);
      if (this.#held.length < end) return;
      const message = this.#held.subarray(2, end);
      this.#held = this.#held.subarray(end);
      this.#onMessage(message);
    }
  }
}
