// Accepting: a listener inside a pod's network namespace, and what the kernel knows of each socket.

import net from "node:net";
import { isLoopback, parseIp, type Ip } from "@ambit/common/net/ip.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import { HBONE_PORT } from "@ambit/common/hbone/limits.ts";
import { acceptBytes } from "@ambit/common/sys/accept-bytes.ts";
import { type Keepalive, listenTcp, originalDst } from "@ambit/common/sys/sockets.ts";
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

/**
 * Opens a listener in the pod for plain connections; they wait, unread, until their far side is
 * there. Throws SystemError when the port cannot be bound there.
 */
export function openListener(
  context: ProxyContext,
  pod: Pod,
  port: number,
  onSocket: (socket: ByteSocket) => void,
): net.Server {
  const { keepalive } = context.config;
  const fd = listenIn(context, pod, port, keepalive);
  const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true });
  server.listen({ fd });
  acceptBytes(server, onSocket);
  return server;
}

/** The same for tunnels: TLS needs Node sockets, and HTTP/2's pings keep them alive. */
export function openTunnelListener(
  context: ProxyContext,
  pod: Pod,
  port: number,
  onSocket: (socket: net.Socket) => void,
): net.Server {
  const fd = listenIn(context, pod, port);
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on("error", ignoreEarlyError);
    onSocket(socket);
  });
  server.listen({ fd });
  return server;
}

function listenIn({ config }: ProxyContext, pod: Pod, port: number, keepalive?: Keepalive): number {
  return listenTcp(pod.netnsFd, {
    address: { ip: (config.ipv6 ? "::" : "0.0.0.0") as Ip, port },
    ...(config.packetMark !== undefined && { mark: config.packetMark }),
    ...(keepalive !== undefined && { keepalive }),
    transparent: TRANSPARENCY[config.originalSource],
    reusePort: config.portReuse,
  });
}

const TRANSPARENCY = { auto: "best-effort", required: "required", never: "never" } as const;

/** Errors of a socket end its relay by `close`; before there is one, nobody else listens. */
function ignoreEarlyError(): void {}

/** The two ends of a redirected socket; undefined when the peer is gone already. */
export function describeRedirected(socket: ByteSocket): Accepted | undefined {
  const source = socket.remote;
  if (source === undefined) return undefined;
  const destination = originalDst(socket.fd) ?? socket.local;
  return destination && { source, destination };
}

/** The two ends of a tunnel's socket; undefined when the peer is gone already. */
export function describeTunnel(socket: net.Socket): Accepted | undefined {
  const source = addressOf(socket.remoteAddress, socket.remotePort);
  const destination = addressOf(socket.localAddress, socket.localPort);
  return source && destination && { source, destination };
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
