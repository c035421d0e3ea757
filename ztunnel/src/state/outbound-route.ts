// The outbound decision (ztunnel §3.1): where a connection of a local pod goes, as data. Pure: nothing
// is dialed here. The same code answers `ambit explain`, which only adds a recorder.

import { HBONE_PORT } from "@ambit/common/hbone/limits.ts";
import { type Ip, type IpFamily, ipFamily } from "@ambit/common/net/ip.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import { parseSpiffeId, type SpiffeId, spiffeId } from "@ambit/common/tls/identity.ts";
import { chooseEndpoint, type ChosenEndpoint, type Random } from "./endpoint-choice.ts";
import { addressKey, type MeshState, type Missed } from "./mesh-state.ts";
import { type Service, serviceKey } from "./service.ts";
import type { StoredService } from "./service-store.ts";
import { chooseWaypoint, type FoundWaypoint, resolveGateway } from "./waypoint-choice.ts";
import { type Workload, workloadIdentity } from "./workload.ts";

export type RouteRefusal =
  | "NO_UPSTREAM"
  | "UNKNOWN_WAYPOINT"
  | "UNKNOWN_GATEWAY"
  /** Its hostname does not resolve. */
  | "CONNECT_FAILED";

/** A connection to make through a tunnel. */
export interface HboneRoute {
  readonly kind: "hbone";
  /** What the tunnel's own TCP connection goes to. */
  readonly nextHop: SocketAddress;
  readonly authority: string;
  /** Any of these identities is accepted from the next hop. */
  readonly allowedIdentities: readonly SpiffeId[];
  /** The workload at the next hop: the destination itself, or a waypoint. */
  readonly destination: Workload;
  /** The application's address at the destination; for a waypoint, what was dialed. */
  readonly target: SocketAddress;
  readonly service?: Service;
  readonly viaWaypoint: boolean;
}

/** The next hop has a hostname and no address: once that is looked up, `at` is the route. */
export interface NamedRoute {
  readonly kind: "named";
  readonly hostname: string;
  /** Preferred: the family that the client dialed. */
  readonly family: IpFamily;
  readonly destination: Workload;
  readonly service?: Service;
  at(ip: Ip): SettledRoute;
}

/** A route whose addresses are all known. */
export type SettledRoute = Exclude<OutboundRoute, NamedRoute>;

export type OutboundRoute =
  | { readonly kind: "passthrough"; readonly destination?: Workload; readonly service?: Service }
  | {
      readonly kind: "tcp";
      readonly target: SocketAddress;
      readonly destination: Workload;
      readonly service?: Service;
    }
  | HboneRoute
  | {
      readonly kind: "double-hbone";
      readonly outer: HboneRoute;
      /** "hostname:port", the same on both tunnels. */
      readonly authority: string;
      readonly innerIdentities: readonly SpiffeId[];
      readonly destination: Workload;
      readonly service: Service;
    }
  | NamedRoute
  | {
      readonly kind: "refused";
      readonly code: RouteRefusal;
      readonly reason: string;
      readonly service?: Service;
    };

/** One step of a decision, for explain. */
export interface DecisionStep {
  readonly question: string;
  readonly answer: string;
}

/** The question that only a captured source asks. */
export const TRANSPORT_QUESTION = "how does it get there";

export interface OutboundQuery {
  readonly source: Workload;
  /** As the application dialed it. */
  readonly destination: SocketAddress;
  readonly random: Random;
  readonly missed?: Missed | undefined;
  /** Called for every step, when someone wants to know why. */
  readonly record?: (step: DecisionStep) => void;
}

export function resolveOutbound(state: MeshState, query: OutboundQuery): OutboundRoute {
  const { source, destination, record } = query;
  const address = { network: source.network, ip: destination.ip };
  const dialed = state.findAddress(address, source.namespace);
  if (dialed === undefined) query.missed?.(addressKey(address));
  record?.({ question: `what is ${formatSocketAddress(destination)}`, answer: describe(dialed) });
  if (dialed?.kind === "service") {
    const route = serviceWaypointRoute(state, dialed.found, query);
    if (route !== undefined) return route;
  }
  const service = state.services.byAddress(address, source.namespace);
  if (service !== undefined) return serviceRoute(state, service, query);
  const workload = state.workloadByAddress(address);
  if (workload === undefined) {
    record?.({
      question: "who serves it",
      answer: "nobody the mesh knows: passed through as it is",
    });
    return { kind: "passthrough" };
  }
  return workloadRoute(state, workload, query);
}

/** Step 2: a service with a waypoint goes there, its VIP as authority. */
function serviceWaypointRoute(
  state: MeshState,
  { service }: StoredService,
  query: OutboundQuery,
): OutboundRoute | undefined {
  const waypoint = chooseWaypoint(state, service, query);
  if (waypoint === undefined) return undefined;
  if (waypoint.kind === "unknown")
    return { ...refused("UNKNOWN_WAYPOINT", waypoint.reason), service };
  query.record?.({ question: "is there a waypoint", answer: `yes: ${waypoint.workload.name}` });
  if (waypoint.workload.network !== query.source.network) {
    const remote = { workload: waypoint.workload, via: waypoint.service };
    return crossNetworkRoute(state, service, remote, query);
  }
  return waypointRoute(waypoint, query, service);
}

/** Step 3 for a service: an endpoint, unless it is passthrough. */
function serviceRoute(
  state: MeshState,
  stored: StoredService,
  query: OutboundQuery,
): OutboundRoute {
  const { service } = stored;
  const { source, destination, random, record } = query;
  if (service.loadBalancer.mode === "passthrough") {
    record?.({
      question: "which endpoint",
      answer: "none: the service passes through to the address",
    });
    return { kind: "passthrough", service };
  }
  const { ip: dialedIp, port: servicePort } = destination;
  const wanted = { source, servicePort, family: ipFamily(dialedIp), dialedIp };
  const endpoint = chooseEndpoint(stored, wanted, random);
  if (endpoint === undefined) {
    const reason = noUpstreamReason(stored, destination.port);
    record?.({ question: "which endpoint", answer: reason });
    return { ...refused("NO_UPSTREAM", reason), service };
  }
  const { workload, port } = endpoint;
  record?.({
    question: "which endpoint",
    answer: `${workload.namespace}/${workload.name} port ${port}, one of ${stored.endpoints.size}`,
  });
  if (workload.network !== source.network)
    return crossNetworkRoute(state, service, { workload, via: service }, query);
  return directRoute(endpoint, query, service);
}

function noUpstreamReason({ service, endpoints }: StoredService, port: number): string {
  const name = serviceKey(service);
  if (!service.ports.has(port)) {
    return `no healthy upstream: service ${name} has no port ${port} (it has ${[...service.ports.keys()].join(", ")})`;
  }
  if (endpoints.size === 0) return `no healthy upstream: service ${name} has no ready endpoint`;
  return `no healthy upstream: no endpoint of service ${name} can be used from here`;
}

/** Steps 5 and 6 for a workload dialed by its own address. */
function workloadRoute(state: MeshState, workload: Workload, query: OutboundQuery): OutboundRoute {
  const { source, destination } = query;
  if (workload.waypoint !== undefined && !isWaypointOf(state, source, workload)) {
    const waypoint = resolveGateway(state, workload.waypoint, query);
    if (waypoint.kind === "unknown") return refused("UNKNOWN_WAYPOINT", waypoint.reason);
    query.record?.({ question: "is there a waypoint", answer: `yes: ${waypoint.workload.name}` });
    return waypointRoute(waypoint, query, undefined);
  }
  return directRoute({ workload, port: destination.port, ip: destination.ip }, query, undefined);
}

function directRoute(
  { workload, port, ip }: ChosenEndpoint,
  query: OutboundQuery,
  service: Service | undefined,
): OutboundRoute {
  const common = { destination: workload, ...(service && { service }) };
  const isTunnelled = workload.protocol === "HBONE";
  query.record?.({
    question: TRANSPORT_QUESTION,
    answer: isTunnelled ? "in an mTLS tunnel (HBONE)" : "in plain text: it is not in the mesh",
  });
  return whenLocated(workload, ip, query, service, (located) => {
    const target = { ip: located, port };
    if (!isTunnelled) return { kind: "tcp", target, ...common };
    return {
      kind: "hbone",
      nextHop: { ip: located, port: HBONE_PORT },
      authority: formatSocketAddress(target),
      allowedIdentities: [...sansOf(service), spiffeId(workloadIdentity(workload))],
      target,
      viaWaypoint: false,
      ...common,
    };
  });
}

/** The route to a workload: at once when it has an address, else when its name is looked up. */
function whenLocated(
  destination: Workload,
  ip: Ip | undefined,
  query: OutboundQuery,
  service: Service | undefined,
  at: NamedRoute["at"],
): OutboundRoute {
  if (ip !== undefined) return at(ip);
  const { hostname } = destination;
  query.record?.({ question: "where is it", answer: `where DNS says ${hostname} is` });
  const family = ipFamily(query.destination.ip);
  return { kind: "named", hostname, family, destination, at, ...(service && { service }) };
}

function waypointRoute(
  waypoint: FoundWaypoint,
  query: OutboundQuery,
  service: Service | undefined,
): OutboundRoute {
  const { workload, ip } = waypoint;
  return whenLocated(workload, ip, query, service, (located) =>
    tunnelTo(waypoint, located, query, service),
  );
}

function tunnelTo(
  { workload, port, service: via }: FoundWaypoint,
  ip: Ip,
  { destination }: OutboundQuery,
  service: Service | undefined,
): HboneRoute {
  return {
    kind: "hbone",
    nextHop: { ip, port },
    authority: formatSocketAddress(destination),
    allowedIdentities: [...sansOf(via), spiffeId(workloadIdentity(workload))],
    destination: workload,
    target: destination,
    viaWaypoint: true,
    ...(service && { service }),
  };
}

/** A workload of another network, and the service that led to it: the dialed one, or its waypoint's. */
interface Remote {
  readonly workload: Workload;
  readonly via: Service | undefined;
}

/** Two tunnels: the outer one to the network's gateway, the inner one to the workload behind it (§1.11). */
function crossNetworkRoute(
  state: MeshState,
  service: Service,
  { workload: remote, via }: Remote,
  query: OutboundQuery,
): OutboundRoute {
  if (remote.networkGateway === undefined) {
    return { ...refused("UNKNOWN_GATEWAY", `network ${remote.network} has no gateway`), service };
  }
  const gateway = resolveGateway(state, remote.networkGateway, query);
  if (gateway.kind === "unknown")
    return { ...refused("UNKNOWN_GATEWAY", `unknown network gateway: ${gateway.reason}`), service };
  const authority = `${service.hostname}:${query.destination.port}`;
  return whenLocated(gateway.workload, gateway.ip, query, service, (ip) => ({
    kind: "double-hbone",
    outer: { ...tunnelTo(gateway, ip, query, service), authority, viaWaypoint: false },
    authority,
    innerIdentities: sansOf(via),
    destination: remote,
    service,
  }));
}

/** A waypoint calling a workload it serves must not be sent back to itself (step 5). */
function isWaypointOf(state: MeshState, source: Workload, workload: Workload): boolean {
  const reference = workload.waypoint;
  if (reference === undefined) return false;
  const { destination } = reference;
  const service =
    destination.kind === "address"
      ? state.services.byAddress(destination, source.namespace)
      : state.services.byKey(`${destination.namespace}/${destination.hostname}`);
  if (service !== undefined) return service.endpoints.has(source.uid);
  return destination.kind === "address"
    ? source.addresses.includes(destination.ip)
    : source.hostname === destination.hostname && source.namespace === destination.namespace;
}

function sansOf(service: Service | undefined): SpiffeId[] {
  return (service?.subjectAltNames ?? []).flatMap((san) => {
    const identity = parseSpiffeId(san);
    return identity === undefined ? [] : [spiffeId(identity)];
  });
}

function refused(code: RouteRefusal, reason: string): Extract<OutboundRoute, { kind: "refused" }> {
  return { kind: "refused", code, reason };
}

function describe(dialed: ReturnType<MeshState["findAddress"]>): string {
  if (dialed === undefined) return "an address the mesh does not know";
  if (dialed.kind === "service") return `service ${serviceKey(dialed.found.service)}`;
  return `workload ${dialed.workload.namespace}/${dialed.workload.name}`;
}
