// Forwarding: a query goes on, byte for byte, to the resolvers of ztunnel's own resolv.conf, from a
// socket in the pod's namespace; the answer comes back untouched.

import dgram from "node:dgram";
import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import type { Clock } from "@ambit/common/process/clock.ts";
import { ipFamily, parseIp, type Ip } from "@ambit/common/net/ip.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { ByteDialer } from "@ambit/common/sys/byte-dialer.ts";
import { fdLoop } from "@ambit/common/sys/fd-loop.ts";
import { udpSocket } from "@ambit/common/sys/sockets.ts";
import { frameTcp, TcpMessages } from "./tcp-messages.ts";

/** Per upstream try. */
const TRY_TIMEOUT_MS = 2_000;
/** glibc's patience with one server; upstreams are asked in turn until then. */
export const FORWARD_PATIENCE_MS = 5_000;
/** Queries of one pod in flight; beyond it the client is told SERVFAIL. */
export const FORWARDS_IN_FLIGHT_MAX = 512;

export interface ForwarderOptions {
  readonly netnsFd: number | undefined;
  readonly mark: number | undefined;
  readonly clock: Clock;
  readonly upstreams: readonly SocketAddress[];
  /** Aborts when the pod is cut: nothing more is opened in its namespace, and nobody waits. */
  readonly forced: AbortSignal;
}

export class Forwarder {
  readonly #options: ForwarderOptions;
  #inFlight = 0;

  constructor(options: ForwarderOptions) {
    this.#options = options;
  }

  /** The upstream's answer to `query`, as it came; a string says why there is none. */
  async forward(query: Buffer, transport: "udp" | "tcp"): Promise<Buffer | string> {
    if (this.#options.upstreams.length === 0) return "no upstream resolver is configured";
    if (this.#inFlight >= FORWARDS_IN_FLIGHT_MAX) return "too many queries in flight";
    this.#inFlight++;
    try {
      return await this.#askInTurn(query, transport);
    } finally {
      this.#inFlight--;
    }
  }

  async #askInTurn(query: Buffer, transport: "udp" | "tcp"): Promise<Buffer | string> {
    const { clock, upstreams, forced } = this.#options;
    const deadlineMs = clock.monotonicMs() + FORWARD_PATIENCE_MS;
    for (let turn = 0; ; turn++) {
      const leftMs = deadlineMs - clock.monotonicMs();
      if (leftMs <= 0 || forced.aborted) return "no upstream resolver answered";
      const upstream = upstreams[turn % upstreams.length]!;
      const beganMs = clock.monotonicMs();
      const tryMs = Math.min(leftMs, TRY_TIMEOUT_MS);
      const asked =
        transport === "udp"
          ? this.#askUdp(query, upstream, tryMs)
          : this.#askTcp(query, upstream, tryMs);
      const answer = await asked.catch(() => undefined);
      if (answer !== undefined) return answer;
      // One that refuses at once is not asked over and over.
      const refused = clock.monotonicMs() - beganMs < tryMs;
      if (refused && turn + 1 >= upstreams.length) return "no upstream resolver answered";
    }
  }

  #askUdp(query: Buffer, upstream: SocketAddress, tryMs: number): Promise<Buffer | undefined> {
    const { netnsFd, mark, clock, forced } = this.#options;
    const family = ipFamily(upstream.ip);
    const fd = udpSocket(netnsFd, {
      address: { ip: (family === 4 ? "0.0.0.0" : "::") as Ip, port: 0 },
      ...(mark !== undefined && { mark }),
    });
    const socket = dgram.createSocket(family === 4 ? "udp4" : "udp6");
    const heeded = fdLoop().heed(fd);
    return new Promise((resolve) => {
      const finish = (answer: Buffer | undefined) => {
        heeded[Symbol.dispose]();
        timer.cancel();
        forced.removeEventListener("abort", onForce);
        socket.close();
        resolve(answer);
      };
      const onForce = () => finish(undefined);
      const timer = clock.after(tryMs, onForce);
      forced.addEventListener("abort", onForce);
      socket.on("error", () => finish(undefined));
      socket.on("message", (answer, { address, port }) => {
        const isFrom = port === upstream.port && parseIp(address) === upstream.ip;
        if (isFrom && isAnswerTo(answer, query)) finish(answer);
      });
      socket.bind({ fd }, () => socket.send(query, upstream.port, upstream.ip));
    });
  }

  async #askTcp(
    query: Buffer,
    upstream: SocketAddress,
    tryMs: number,
  ): Promise<Buffer | undefined> {
    const { netnsFd, mark, clock } = this.#options;
    const dialer = new ByteDialer(netnsFd, mark === undefined ? {} : { mark });
    const { socket } = await dialer.connect({ destination: upstream, timeoutMs: tryMs });
    return readOneMessage(socket, query, clock, tryMs);
  }
}

function isAnswerTo(answer: Buffer, query: Buffer): boolean {
  return answer.length >= 2 && answer.readUInt16BE(0) === query.readUInt16BE(0);
}

function readOneMessage(
  socket: ByteSocket,
  query: Buffer,
  clock: Clock,
  tryMs: number,
): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const reader = new TcpMessages((answer) => finish(answer));
    const finish = (answer: Buffer | undefined) => {
      timer.cancel();
      socket.destroy();
      resolve(answer);
    };
    const timer = clock.after(tryMs, () => finish(undefined));
    socket.handler = {
      onBytes: (bytes) => reader.push(bytes),
      onEnd: () => finish(undefined),
      onWritable: () => undefined,
      onClose: () => finish(undefined),
    };
    socket.write(frameTcp(query));
    socket.resume();
  });
}
