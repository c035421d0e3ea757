// Connecting from one network namespace, for bytes only. Entering a namespace costs more than making a
// socket there, so a busy dialer makes several at a time and keeps the rest for its next connections.

import type { ByteSocket } from "../net/byte-socket.ts";
import { type IpFamily, ipFamily } from "../net/ip.ts";
import type { SocketAddress } from "../net/socket-address.ts";
import { EINPROGRESS } from "./constants.ts";
import { fdLoop } from "./fd-loop.ts";
import { errnoError, FdSocket, SOCKET_EVENTS } from "./fd-socket.ts";
import { closeFd } from "./libc.ts";
import { inNetns } from "./netns.ts";
import {
  bindSpoofed,
  type Keepalive,
  openDialSocket,
  socketError,
  startConnect,
} from "./sockets.ts";

/** Sockets made at a time and family when a dialer is busy: past it, entering hardly counts. */
export const STOCK_MAX = 16;

/** What is the same for all connections of a dialer. */
export interface ByteDialerOptions {
  readonly mark?: number;
  readonly keepalive?: Keepalive;
}

export interface ByteDial {
  readonly destination: SocketAddress;
  /** Connect from this address although it may not be ours; when that fails, from our own. */
  readonly spoof?: SocketAddress;
  readonly timeoutMs: number;
}

export interface DialedBytes {
  readonly socket: ByteSocket;
  /** False when the address to spoof could not be bound; the peer then sees our own. */
  readonly spoofed: boolean;
}

/** Descriptors that wait for their connection, and how many to make when there are none. */
interface Stock {
  readonly fds: number[];
  batch: number;
}

export class ByteDialer {
  readonly #netnsFd: number | undefined;
  readonly #options: ByteDialerOptions;
  readonly #stocks: Readonly<Record<IpFamily, Stock>> = {
    4: { fds: [], batch: 1 },
    6: { fds: [], batch: 1 },
  };
  #closed = false;

  /** `netnsFd` undefined: this thread's own namespace. */
  constructor(netnsFd: number | undefined, options: ByteDialerOptions = {}) {
    this.#netnsFd = netnsFd;
    this.#options = options;
  }

  /** Rejects with Node's error codes (ECONNREFUSED, …) and ETIMEDOUT after `timeoutMs`. */
  async connect(dial: ByteDial): Promise<DialedBytes> {
    const family = ipFamily(dial.destination.ip);
    const fd = this.#take(family);
    const spoofed = dial.spoof !== undefined && bindSpoofed(fd, dial.spoof, family);
    return { socket: await connectFd(fd, dial), spoofed };
  }

  /** Closes what is in stock. Connections may still be made, one socket at a time. */
  close(): void {
    this.#closed = true;
    for (const { fds } of Object.values(this.#stocks)) fds.splice(0).forEach(closeFd);
  }

  #take(family: IpFamily): number {
    const stock = this.#stocks[family];
    const waiting = stock.fds.pop();
    if (waiting !== undefined) return waiting;
    const batch = this.#closed ? 1 : stock.batch;
    stock.batch = Math.min(stock.batch * 2, STOCK_MAX);
    inNetns(this.#netnsFd, () => this.#fill(stock, family, batch));
    return stock.fds.pop()!;
  }

  /** Makes `count` sockets, or as many as there are descriptors for; throws when there is none. */
  #fill({ fds }: Stock, family: IpFamily, count: number): void {
    try {
      while (fds.length < count) fds.push(openDialSocket(family, this.#options));
    } catch (error) {
      if (fds.length === 0) throw error;
    }
  }
}

async function connectFd(fd: number, { destination, timeoutMs }: ByteDial): Promise<ByteSocket> {
  const errno = startConnect(fd, destination);
  if (errno === 0) return new FdSocket(fd);
  if (errno === EINPROGRESS) return whenConnected(fd, destination, timeoutMs);
  closeFd(fd);
  throw errnoError("connect", -errno);
}

function whenConnected(
  fd: number,
  { ip, port }: SocketAddress,
  timeoutMs: number,
): Promise<ByteSocket> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => {
      clearTimeout(timer);
      loop.remove(slot);
      closeFd(fd);
      reject(error);
    };
    const onReady = (events: number) => {
      const errno = socketError(fd);
      if (errno !== 0) return fail(errnoError("connect", -errno));
      clearTimeout(timer);
      const socket = new FdSocket(fd, loop, slot);
      // A peer that speaks first may have done so.
      socket.onReady(events);
      resolve(socket);
    };
    const timer = setTimeout(() => {
      const error = new Error(`connect to ${ip}:${port} timed out`);
      fail(Object.assign(error, { code: "ETIMEDOUT" }));
    }, timeoutMs);
    const loop = fdLoop();
    const slot = loop.add(fd, SOCKET_EVENTS, { onReady });
  });
}
