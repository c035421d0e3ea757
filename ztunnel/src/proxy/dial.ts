// Dialing: plain TCP connections from inside a pod's namespace, to applications and to peers.

import { errorCode, errorMessage } from "@ambit/common/process/errors.ts";
import { ipFamily, type Ip } from "@ambit/common/net/ip.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import type { ByteDial, ByteDialerOptions } from "@ambit/common/sys/byte-dialer.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { ProxyError, type ProxyErrorCode } from "./proxy-error.ts";

/** As ztunnel's (proxy.rs). */
export const CONNECT_TIMEOUT_MS = 10_000;

export interface Dial {
  readonly destination: SocketAddress;
  /** The client whose address the destination should see. */
  readonly onBehalfOf?: Ip;
  /** What a time-out is called: a tunnel's hints at a NetworkPolicy. */
  readonly timeoutCode: Extract<ProxyErrorCode, "CONNECT_TIMEOUT" | "TUNNEL_TIMEOUT">;
}

/** A connected, paused socket. Rejects with CONNECT_FAILED or the time-out code. */
export async function dial(context: ProxyContext, pod: Pod, request: Dial): Promise<ByteSocket> {
  try {
    const { socket } = await pod.dialer.connect(byteDial(context, request));
    return socket;
  } catch (error) {
    throw dialError(request, error);
  }
}

/** What all sockets that ztunnel dials with have. */
export function socketOptions({ config }: ProxyContext): ByteDialerOptions {
  return {
    ...(config.packetMark !== undefined && { mark: config.packetMark }),
    ...(config.keepalive && { keepalive: config.keepalive }),
  };
}

function byteDial({ config }: ProxyContext, { destination, onBehalfOf }: Dial): ByteDial {
  const spoof = spoofFor(config.originalSource, destination, onBehalfOf);
  return { destination, timeoutMs: CONNECT_TIMEOUT_MS, ...(spoof && { spoof }) };
}

/** No spoofing when switched off, or when a pod calls itself (ztunnel §1.5). */
function spoofFor(
  mode: "auto" | "required" | "never",
  destination: SocketAddress,
  client: Ip | undefined,
): SocketAddress | undefined {
  if (mode === "never" || client === undefined || client === destination.ip) return undefined;
  return ipFamily(client) === ipFamily(destination.ip) ? { ip: client, port: 0 } : undefined;
}

function dialError({ destination, timeoutCode }: Dial, error: unknown): ProxyError {
  const address = formatSocketAddress(destination);
  if (errorCode(error) !== "ETIMEDOUT") {
    return new ProxyError(
      "CONNECT_FAILED",
      `connection to ${address} failed: ${errorMessage(error)}`,
      error,
    );
  }
  const hint =
    timeoutCode === "TUNNEL_TIMEOUT" ? "; a NetworkPolicy may be blocking port 15008" : "";
  return new ProxyError(timeoutCode, `connection to ${address} timed out${hint}`, error);
}
