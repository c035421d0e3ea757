// Accepting: a listener inside a pod's network namespace, and what the kernel knows of each socket.

import { isLoopback, type Ip } from "@ambit/common/net/ip.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import { CONSTANTS } from "@ambit/common/sys/bpf-layout.gen.ts";
import { acceptBytes, type ByteListener } from "@ambit/common/sys/accept-bytes.ts";
import { listenTcp, originalDst, socketMark } from "@ambit/common/sys/sockets.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { ProxyError } from "./proxy-error.ts";

export interface Accepted {
  readonly source: SocketAddress;
  /** Where the connection was going before it was redirected to us. */
  readonly destination: SocketAddress;
}

export interface PodListenOptions {
  /** 0: any. */
  readonly port: number;
  /** Connections come by steering: to addresses that are not the socket's. */
  readonly steered: boolean;
  /** Relayed as they are; tunnels have HTTP/2's pings to keep them alive. */
  readonly relayed: boolean;
}

/** Opens a listening descriptor in the pod. Throws SystemError when the port cannot be bound there. */
export function listenIn({ config }: ProxyContext, pod: Pod, options: PodListenOptions): number {
  const { keepalive } = config;
  return listenTcp(pod.netnsFd, {
    address: { ip: (config.ipv6 ? "::" : "0.0.0.0") as Ip, port: options.port },
    // Steered ones need none: what they accept takes the mark of what arrives.
    ...(!options.steered && config.packetMark !== undefined && { mark: config.packetMark }),
    ...(options.relayed && keepalive !== undefined && { keepalive }),
    transparent: options.steered ? "required" : TRANSPARENCY[config.originalSource],
    reusePort: config.portReuse,
  });
}

/** Accepts plain connections; they wait, unread, until their far side is there. Takes over `fd`. */
export function acceptConnections(
  fd: number,
  onSocket: (socket: ByteSocket) => void,
): ByteListener {
  return acceptBytes(fd, onSocket);
}

const TRANSPARENCY = { auto: "best-effort", required: "required", never: "never" } as const;

/** The two ends of a redirected socket; undefined when the peer is gone already. */
export function describeRedirected(socket: ByteSocket): Accepted | undefined {
  const source = socket.remote;
  if (source === undefined) return undefined;
  const destination = originalDst(socket.fd) ?? socket.local;
  return destination && { source, destination };
}

/** The two ends of a tunnel's socket; undefined when the peer is gone already. */
export function describeTunnel(socket: ByteSocket): Accepted | undefined {
  const { remote: source, local: destination } = socket;
  return source && destination && { source, destination };
}

/**
 * Refuses what we ourselves were delivering to the application: the kernel had no room to note that it may
 * pass, so it came back to us, and would again. Packets from elsewhere bear no mark.
 */
export function refuseOwnDelivery(socket: ByteSocket): void {
  if ((socketMark(socket.fd) & CONSTANTS.MARK_MASK) !== CONSTANTS.CAPTURE_MARK) return;
  throw new ProxyError(
    "SELF_CALL",
    "a connection of ztunnel itself came back to it: too many are being opened at once",
  );
}

/**
 * Refuses a connection to one of our own ports (ztunnel §2.1). Outbound, they are ours on loopback and on
 * the pod's own address; other pods' are theirs.
 */
export function refuseSelfCall(
  { ownPorts }: Pod,
  { source, destination }: Accepted,
  direction: "inbound" | "outbound",
): void {
  if (!ownPorts.has(destination.port)) return;
  const own = isLoopback(destination.ip) || destination.ip === source.ip;
  if (direction === "outbound" && !own) return;
  const address = formatSocketAddress(destination);
  throw new ProxyError(
    "SELF_CALL",
    `${address} is a port of ztunnel itself: recursive call refused`,
  );
}
