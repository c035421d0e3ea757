// Which waypoint or gateway a reference means (ztunnel §3.2). A reference that leads nowhere is an
// answer of its own: such traffic fails, it never goes around the waypoint.

import { type Ip, ipFamily } from "@ambit/common/net/ip.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { chooseEndpoint, type ChosenEndpoint, chooseIp, type Random } from "./endpoint-choice.ts";
import { addressKey, type MeshState, type Missed } from "./mesh-state.ts";
import { type Service, serviceKey } from "./service.ts";
import type { StoredService } from "./service-store.ts";
import type { GatewayAddress, Workload } from "./workload.ts";

export type Waypoint = FoundWaypoint | UnknownWaypoint;

export interface FoundWaypoint {
  readonly kind: "found";
  readonly workload: Workload;
  /** undefined: it has only a hostname, or it is on another network and has only a gateway. */
  readonly ip?: Ip;
  readonly port: number;
  /** The service it was reached through. */
  readonly service?: Service;
}

export interface UnknownWaypoint {
  readonly kind: "unknown";
  readonly reason: string;
}

interface GatewayQuery {
  readonly source: Workload;
  readonly destination: SocketAddress;
  readonly random: Random;
  readonly missed?: Missed | undefined;
}

/** The waypoint of a service: weighted ones first, then its own; undefined when it has none. */
export function chooseWaypoint(
  state: MeshState,
  service: Service,
  query: GatewayQuery,
): Waypoint | undefined {
  const reference = weighted(service, query.random) ?? service.waypoint;
  return reference && resolveGateway(state, reference, query);
}

function weighted({ weightedWaypoints }: Service, random: Random): GatewayAddress | undefined {
  let total = 0;
  for (const { weight } of weightedWaypoints) total += weight;
  if (total === 0) return undefined;
  let at = random() * total;
  for (const { waypoint, weight } of weightedWaypoints) {
    at -= weight;
    if (at < 0) return waypoint;
  }
  return undefined;
}

/** Finds the workload behind a gateway reference, and where to connect to it. */
export function resolveGateway(
  state: MeshState,
  reference: GatewayAddress,
  query: GatewayQuery,
): Waypoint {
  const { destination, hboneMtlsPort } = reference;
  const service =
    destination.kind === "address"
      ? state.services.byAddress(destination, query.source.namespace)
      : state.services.byKey(`${destination.namespace}/${destination.hostname}`);
  if (service !== undefined) return viaService(state, service, hboneMtlsPort, reference, query);
  const workload =
    destination.kind === "address"
      ? state.workloadByAddress(destination)
      : state.workloadByHostname(destination.namespace, destination.hostname);
  if (workload === undefined) {
    query.missed?.(gatewayKey(reference));
    return unknown(reference);
  }
  const ip = chooseIp(workload.addresses, [], familyOf(reference, query));
  return found(reference, query, { workload, port: hboneMtlsPort, ...(ip && { ip }) });
}

/** By what a waypoint or gateway is asked for on demand. */
export function gatewayKey({ destination }: GatewayAddress): string {
  return destination.kind === "address" ? addressKey(destination) : serviceKey(destination);
}

function viaService(
  state: MeshState,
  stored: StoredService,
  servicePort: number,
  reference: GatewayAddress,
  query: GatewayQuery,
): Waypoint {
  const wanted = {
    source: query.source,
    servicePort,
    family: familyOf(reference, query),
    forWaypoint: true,
  };
  const endpoint = chooseEndpoint(stored, wanted, query.random);
  if (endpoint === undefined) return unknown(reference, "it has no ready endpoint");
  return found(reference, query, endpoint, stored.service);
}

/** Without an address it must be possible to look one up, or to go through its network's gateway. */
function found(
  reference: GatewayAddress,
  { source }: GatewayQuery,
  endpoint: ChosenEndpoint,
  service?: Service,
): Waypoint {
  const { workload, ip } = endpoint;
  const reachable = ip !== undefined || workload.hostname !== "";
  if (!reachable && workload.network === source.network) {
    return unknown(reference, "it has neither address nor hostname");
  }
  return { kind: "found", ...endpoint, ...(service && { service }) };
}

/** By address, its family; by hostname, the family that was dialed. */
function familyOf({ destination }: GatewayAddress, query: GatewayQuery): 4 | 6 {
  return ipFamily(destination.kind === "address" ? destination.ip : query.destination.ip);
}

function unknown(
  { destination }: GatewayAddress,
  why = "the mesh does not know it",
): UnknownWaypoint {
  const name = destination.kind === "address" ? destination.ip : serviceKey(destination);
  return { kind: "unknown", reason: `unknown waypoint ${name}: ${why}` };
}
