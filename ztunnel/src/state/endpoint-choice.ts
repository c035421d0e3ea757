// Which endpoint of a service takes a connection, on which port and address (ztunnel §3.4, §3.5).

import { type Ip, type IpFamily, ipFamily } from "@ambit/common/net/ip.ts";
import type { Endpoint, Scope, Service } from "./service.ts";
import type { StoredService } from "./service-store.ts";
import type { Workload } from "./workload.ts";

/** A number in [0, 1). */
export type Random = () => number;

export interface ChosenEndpoint {
  readonly workload: Workload;
  readonly port: number;
  /** undefined: the workload has only a hostname, or only a gateway. */
  readonly ip?: Ip;
}

export interface EndpointQuery {
  readonly source: Workload;
  readonly servicePort: number;
  /** Family that the client dialed. */
  readonly family: IpFamily;
  /** Taken when it is the chosen workload's own. */
  readonly dialedIp?: Ip;
  /** A waypoint may lack the port when it has an application tunnel (ztunnel §3.2). */
  readonly forWaypoint?: boolean;
}

/** undefined: the service has no endpoint that can take this connection. */
export function chooseEndpoint(
  stored: StoredService,
  query: EndpointQuery,
  random: Random,
): ChosenEndpoint | undefined {
  return weightedPick(endpointCandidates(stored, query), random);
}

/** Those that the choice is made of, each with its workload's capacity as weight. */
export function endpointCandidates(
  { service, endpoints }: StoredService,
  query: EndpointQuery,
): readonly ChosenEndpoint[] {
  const candidates: ChosenEndpoint[] = [];
  for (const endpoint of endpoints.values()) {
    const { workload } = endpoint;
    if (!reachable(workload, query.source)) continue;
    const port = targetPort(service, endpoint, query);
    if (port === undefined) continue;
    const ip = addressOf(workload, service, query);
    if (ip === undefined && workload.addresses.length > 0) continue;
    candidates.push({ workload, port, ...(ip !== undefined && { ip }) });
  }
  return preferred(candidates, service, query.source);
}

function addressOf(
  { addresses }: Workload,
  { ipFamilies }: Service,
  { family, dialedIp }: EndpointQuery,
): Ip | undefined {
  if (dialedIp !== undefined && addresses.includes(dialedIp)) return dialedIp;
  return chooseIp(addresses, ipFamilies, family);
}

/** An endpoint needs an address or a name, or a gateway when it lives on another network. */
function reachable(workload: Workload, source: Workload): boolean {
  if (workload.addresses.length > 0 || workload.hostname !== "") return true;
  return workload.network !== source.network && workload.networkGateway !== undefined;
}

function targetPort(
  service: Service,
  { workload, ports }: Endpoint,
  { servicePort, forWaypoint }: EndpointQuery,
): number | undefined {
  const declared = service.ports.get(servicePort);
  const mapped = ports.get(servicePort);
  if (declared === undefined && !forWaypoint) return undefined;
  if (mapped) return mapped;
  if (declared) return declared;
  if (forWaypoint && workload.applicationTunnel?.port !== undefined) return servicePort;
  return undefined;
}

/** The allowed address of the dialed family, else the first allowed one. */
export function chooseIp(
  addresses: readonly Ip[],
  families: readonly IpFamily[],
  dialed: IpFamily,
): Ip | undefined {
  const allowed =
    families.length === 0 ? addresses : addresses.filter((ip) => families.includes(ipFamily(ip)));
  return allowed.find((ip) => ipFamily(ip) === dialed) ?? allowed[0];
}

function preferred(
  candidates: readonly ChosenEndpoint[],
  service: Service,
  source: Workload,
): readonly ChosenEndpoint[] {
  const { mode, routingPreferences: scopes } = service.loadBalancer;
  if (mode === "standard" || mode === "passthrough" || candidates.length === 0) return candidates;
  if (mode === "strict") {
    return candidates.filter(
      ({ workload }) => matchedScopes(scopes, source, workload) === scopes.length,
    );
  }
  const ranks = candidates.map(({ workload }) => rank(scopes, source, workload));
  const best = Math.max(...ranks);
  return candidates.filter((_, i) => ranks[i] === best);
}

/** Leading scopes that match. With NETWORK first, any local network beats any remote one (§3.4). */
function rank(scopes: readonly Scope[], source: Workload, target: Workload): number {
  if (scopes[0] !== "network") return matchedScopes(scopes, source, target);
  const rest = matchedScopes(scopes.slice(1), source, target);
  return source.network === target.network ? rest + 1 + (scopes.length - 1) : rest;
}

function matchedScopes(scopes: readonly Scope[], source: Workload, target: Workload): number {
  const miss = scopes.findIndex((scope) => scopeValue(scope, source) !== scopeValue(scope, target));
  return miss < 0 ? scopes.length : miss;
}

function scopeValue(scope: Scope, workload: Workload): string {
  switch (scope) {
    case "region":
    case "zone":
    case "subzone":
      return workload.locality[scope];
    case "node":
      return workload.node;
    case "cluster":
      return workload.clusterId;
    case "network":
      return workload.network;
  }
}

/** Capacity is the weight: unset counts 1, an explicit 0 is never picked. */
function weightedPick(
  candidates: readonly ChosenEndpoint[],
  random: Random,
): ChosenEndpoint | undefined {
  let total = 0;
  for (const { workload } of candidates) total += workload.capacity;
  if (total === 0) return undefined;
  let at = random() * total;
  for (const candidate of candidates) {
    at -= candidate.workload.capacity;
    if (at < 0) return candidate;
  }
  return candidates.findLast(({ workload }) => workload.capacity > 0);
}
