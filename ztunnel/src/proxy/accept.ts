// Accepting: a listener inside a pod's network namespace, and what the kernel knows of each socket.

import net from "node:net";
import { isLoopback, parseIp, type Ip } from "@ambit/common/net/ip.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import { HBONE_PORT } from "@ambit/common/hbone/limits.ts";
import { listenTcp, originalDst, socketFd } from "@ambit/common/sys/sockets.ts";
import { INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT } from "../config.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { ProxyError } from "./proxy-error.ts";

/** Ports that ztunnel itself listens on in a pod: calling them through us would loop. */
export const OWN_PORTS: ReadonlySet<number> = new Set([
  OUTBOUND_PORT,
  INBOUND_PLAINTEXT_PORT,
  HBONE_PORT,
]);

export interface Accepted {
  readonly source: SocketAddress;
  /** Where the connection was going before it was redirected to us. */
  readonly destination: SocketAddress;
}

export interface ListenerOptions {
  readonly port: number;
  /** Accepted sockets wait, unread, until their far side is there. */
  readonly paused: boolean;
  readonly keepalive: boolean;
  onSocket(socket: net.Socket): void;
}

/** Opens a listener in the pod; throws SystemError when the port cannot be bound there. */
export function openListener(
  { config }: ProxyContext,
  pod: Pod,
  options: ListenerOptions,
): net.Server {
  const fd = listenTcp(pod.netnsFd, {
    address: { ip: (config.ipv6 ? "::" : "0.0.0.0") as Ip, port: options.port },
    ...(config.packetMark !== undefined && { mark: config.packetMark }),
    transparent: TRANSPARENCY[config.originalSource],
    reusePort: config.portReuse,
  });
  const keepalive = options.keepalive && config.keepalive;
  const server = net.createServer(
    {
      allowHalfOpen: true,
      pauseOnConnect: options.paused,
      noDelay: true,
      ...(keepalive && { keepAlive: true, keepAliveInitialDelay: keepalive.timeSeconds * 1000 }),
    },
    (socket) => {
      socket.on("error", ignoreEarlyError);
      options.onSocket(socket);
    },
  );
  server.listen({ fd });
  return server;
}

const TRANSPARENCY = { auto: "best-effort", required: "required", never: "never" } as const;

/** Errors of a socket end its relay by `close`; before there is one, nobody else listens. */
function ignoreEarlyError(): void {}

/** The two ends of an accepted socket; undefined when the peer is gone already. */
export function describeAccepted(socket: net.Socket, redirected: boolean): Accepted | undefined {
  const source = addressOf(socket.remoteAddress, socket.remotePort);
  if (source === undefined) return undefined;
  const original = redirected ? originalDst(socketFd(socket)) : undefined;
  const destination = original ?? addressOf(socket.localAddress, socket.localPort);
  return destination && { source, destination };
}

function addressOf(text: string | undefined, port: number | undefined): SocketAddress | undefined {
  const ip = text === undefined ? undefined : parseIp(text);
  return ip === undefined || port === undefined ? undefined : { ip, port };
}

/** Refuses a connection to one of our own ports (ztunnel §2.1). Outbound, only loopback is ours. */
export function refuseSelfCall(
  { ip, port }: SocketAddress,
  direction: "inbound" | "outbound",
): void {
  if (!OWN_PORTS.has(port) || (direction === "outbound" && !isLoopback(ip))) return;
  const address = formatSocketAddress({ ip, port });
  throw new ProxyError(
    "SELF_CALL",
    `${address} is a port of ztunnel itself: recursive call refused`,
  );
}
