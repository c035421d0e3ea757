// Tunnelling: a CONNECT stream to the next hop over a pooled, mutually authenticated connection.

import { HboneClientConnection, type TunnelResponse } from "@ambit/common/hbone/client.ts";
import { encodeForwarded } from "@ambit/common/hbone/forwarded.ts";
import { type PoolKey, TunnelPool } from "@ambit/common/hbone/pool.ts";
import type { TunnelStream } from "@ambit/common/hbone/stream.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { spiffeId, type SpiffeId } from "@ambit/common/tls/identity.ts";
import { secureClient, type SecureResult } from "@ambit/common/tls/secure.ts";
import { baggageOf } from "../telemetry/party.ts";
import type { HboneRoute } from "../state/outbound-route.ts";
import type { Service } from "../state/service.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { dial } from "./dial.ts";
import { ProxyError } from "./proxy-error.ts";
import { guard, handshakeError, secureOptions } from "./revocation.ts";

const HTTP_OK = 200;
const HTTP_UNAUTHORIZED = 401;

export interface TunnelOrder {
  readonly source: Workload;
  readonly client: SocketAddress;
  readonly route: HboneRoute;
  readonly traceparent: string;
  /** What the client has sent already: taken when the tunnel can carry it (hbone/client.ts). */
  readonly early?: () => Buffer | undefined;
}

/** Opens the tunnel for one connection. Rejects with a ProxyError that says which stage failed. */
export async function openTunnel(
  pod: Pod,
  { source, client, route, traceparent, early }: TunnelOrder,
): Promise<TunnelStream> {
  const key: PoolKey = {
    sourceIdentity: spiffeId(workloadIdentity(source)),
    allowedIdentities: route.allowedIdentities,
    nextHop: route.nextHop,
    sourceIp: client.ip,
    workloadUid: route.destination.uid,
  };
  const headers = tunnelHeaders({ source, client, service: route.service, traceparent });
  const request = { authority: route.authority, headers, ...(early && { early }) };
  return (await openStream(pod.pool.openTunnel(key, request))).stream;
}

/** What every CONNECT tells of its connection (ztunnel §1.3). */
export function tunnelHeaders({
  source,
  client,
  service,
  traceparent,
}: {
  readonly source: Workload;
  readonly client: SocketAddress;
  readonly service: Service | undefined;
  readonly traceparent: string;
}): Record<string, string> {
  return {
    baggage: baggageOf(source),
    forwarded: encodeForwarded(client, service?.hostname),
    traceparent,
  };
}

/** The answer to a CONNECT when it is 200; rejects with a ProxyError otherwise. */
export async function openStream(opening: Promise<TunnelResponse>): Promise<TunnelResponse> {
  const response = await opening.catch((error: unknown) => {
    if (error instanceof ProxyError) throw error;
    throw new ProxyError("H2_FAILED", errorMessage(error), error);
  });
  if (response.status === HTTP_OK) return response;
  const code = response.status === HTTP_UNAUTHORIZED ? "TUNNEL_UNAUTHORIZED" : "TUNNEL_REFUSED";
  throw new ProxyError(code, `http status: ${response.status} from the destination's ztunnel`);
}

/** The pool of one pod: its dials leave from the pod's namespace with the pod's identity. */
export function createPool(context: ProxyContext, pod: () => Pod): TunnelPool {
  const { config, clock } = context;
  return new TunnelPool({
    clock,
    streamsPerConnectionMax: config.poolStreamsPerConnectionMax,
    unusedReleaseMs: config.poolUnusedReleaseMs,
    dial: (key, closed) => dialTunnel(context, pod(), key, closed),
  });
}

async function dialTunnel(
  context: ProxyContext,
  pod: Pod,
  key: PoolKey,
  closed: () => void,
): Promise<HboneClientConnection> {
  const certificate = await context.certificates.get(key.sourceIdentity as SpiffeId);
  const raw = await dial(context, pod, {
    destination: key.nextHop,
    timeoutCode: "TUNNEL_TIMEOUT",
  });
  const secured = await secureClient(
    raw,
    certificate,
    key.allowedIdentities as readonly SpiffeId[],
    secureOptions(context),
  );
  return openClient(context, secured, closed);
}

/** HTTP/2 over a handshake that succeeded, guarded until it closes. Throws why it did not succeed. */
export function openClient(
  { config, clock, revocation }: ProxyContext,
  secured: SecureResult,
  onClose: () => void,
): HboneClientConnection {
  if (!secured.ok) throw handshakeError(revocation, "source", secured);
  const client = new HboneClientConnection(secured.socket, {
    settings: config.hbone,
    clock,
    onClose: () => {
      revocation?.forget(client.tunnel);
      onClose();
    },
  });
  guard(revocation, "source", secured, client.tunnel, (error) => client.close(error));
  return client;
}
