// What telemetry says of an outbound connection, from its route; across networks also from what the far
// side told of itself.

import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import type { SettledRoute } from "../state/outbound-route.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";
import type { ConnectionFacts, PathKind } from "../telemetry/connection-telemetry.ts";
import { partyOfBaggage, partyOfWorkload, UNKNOWN_PARTY } from "../telemetry/party.ts";
import type { Accepted } from "./accept.ts";
import type { DoubleTunnel } from "./double-tunnel.ts";

export interface OutboundSubject {
  readonly id: string;
  readonly accepted: Accepted;
  readonly source: Workload;
  readonly route: SettledRoute;
  readonly path: PathKind;
}

export function outboundFacts({
  id,
  accepted,
  source,
  route,
  path,
}: OutboundSubject): ConnectionFacts {
  const destination = destinationOf(route);
  const secured = route.kind === "hbone" || route.kind === "double-hbone";
  const principal = destination && spiffeId(workloadIdentity(destination));
  const tunnelled = secured && path === "hbone";
  return {
    id,
    direction: "outbound",
    path,
    sourceAddress: accepted.source,
    destinationAddress: nextAddress(route, accepted.destination, path),
    source: partyOfWorkload(source),
    destination: destination === undefined ? UNKNOWN_PARTY : partyOfWorkload(destination),
    ...(tunnelled && { hboneTarget: route.authority }),
    ...serviceFact(route),
    ...(secured && { sourceIdentity: spiffeId(workloadIdentity(source)) }),
    ...(secured && principal && { destinationIdentity: principal }),
    ...(principal && { destinationPrincipal: principal }),
  };
}

/** The far network's own word on the destination wins over what we know of it (ztunnel §1.11). */
export function factsAcross(
  facts: ConnectionFacts,
  { peer, baggage }: Pick<DoubleTunnel, "peer" | "baggage">,
): ConnectionFacts {
  const told = partyOfBaggage(baggage);
  const identity = spiffeId(peer);
  return {
    ...facts,
    destination: Object.keys(told).length > 0 ? told : facts.destination,
    destinationIdentity: identity,
    destinationPrincipal: identity,
  };
}

function destinationOf(route: SettledRoute): Workload | undefined {
  return route.kind === "refused" ? undefined : route.destination;
}

function nextAddress(route: SettledRoute, dialed: SocketAddress, path: PathKind): SocketAddress {
  if (route.kind === "hbone") return path === "local" ? route.target : route.nextHop;
  if (route.kind === "double-hbone") return route.outer.nextHop;
  if (route.kind === "tcp") return route.target;
  return dialed;
}

function serviceFact({ service }: SettledRoute): Pick<ConnectionFacts, "service"> {
  if (service === undefined) return {};
  const { hostname, namespace, name } = service;
  return { service: { hostname, namespace, name } };
}
