// To another network (ztunnel §1.11): an outer tunnel to its gateway, pooled as any other, and in it an
// inner one of our own to the service's workload, which the gateway cannot read. Both name the service.

import { parseBaggage, type Baggage } from "@ambit/common/hbone/baggage.ts";
import type { TunnelStream } from "@ambit/common/hbone/stream.ts";
import { bytePair } from "@ambit/common/net/byte-pair.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { type Identity, spiffeId } from "@ambit/common/tls/identity.ts";
import { secureClient } from "@ambit/common/tls/secure.ts";
import type { OutboundRoute } from "../state/outbound-route.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { handshakeError, secureOptions } from "./revocation.ts";
import { openClient, openStream, openTunnel, tunnelHeaders } from "./tunnel.ts";

export type DoubleRoute = Extract<OutboundRoute, { kind: "double-hbone" }>;

export interface DoubleTunnelOrder {
  readonly context: ProxyContext;
  readonly pod: Pod;
  readonly source: Workload;
  readonly client: SocketAddress;
  readonly route: DoubleRoute;
  readonly traceparent: string;
}

export interface DoubleTunnel {
  readonly stream: TunnelStream;
  /** Whom the inner tunnel ends at, as its certificate says. */
  readonly peer: Identity;
  /** What the peer tells of its workload, which our control plane may not know. */
  readonly baggage: Baggage;
  /** Cuts the inner connection, and with it the outer stream. */
  close(): void;
}

/** Opens both tunnels. Rejects with a ProxyError that says which stage failed; nothing is left open. */
export async function openDoubleTunnel(order: DoubleTunnelOrder): Promise<DoubleTunnel> {
  const { context, pod, source, client, route, traceparent } = order;
  const certificate = await context.certificates.get(spiffeId(workloadIdentity(source)));
  const outer = await openTunnel(pod, { source, client, route: route.outer, traceparent });
  const [near, far] = bytePair();
  // The outer stream's end is the inner connection's: it has no telemetry of its own.
  void outer.relay(far, { sent: 0, received: 0 }).then(() => near.destroy());
  const secured = await secureClient(
    near,
    certificate,
    route.innerIdentities,
    secureOptions(context),
  );
  if (!secured.ok) {
    const reason = `inner tunnel: ${secured.reason}`;
    throw handshakeError(context.revocation, "source", { ...secured, reason });
  }
  const inner = openClient(context, secured, () => near.destroy());
  try {
    const headers = {
      ...tunnelHeaders({ source, client, service: route.service, traceparent }),
      "x-forwarded-network": context.config.network,
    };
    const opening = openStream(inner.openTunnel({ authority: route.authority, headers }));
    const { stream, headers: answer } = await opening;
    inner.drain();
    const baggage = parseBaggage(answer.get("baggage") ?? "");
    return { stream, peer: secured.peer, baggage, close: () => inner.close() };
  } catch (error) {
    inner.close();
    throw error;
  }
}
