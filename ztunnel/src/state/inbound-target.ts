// What an inbound CONNECT may ask for (ztunnel §1.5): whether its authority is ours to serve, and which
// port of the pod it means. Pure.

import type { Authority } from "@ambit/common/hbone/authority.ts";
import { type Ip, ipFamily } from "@ambit/common/net/ip.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { serviceKey } from "./service.ts";
import { addressKey, type FoundAddress, type MeshState, type Missed } from "./mesh-state.ts";
import type { StoredService } from "./service-store.ts";
import { gatewayKey } from "./waypoint-choice.ts";
import type { GatewayAddress, Workload } from "./workload.ts";

export type InboundTarget =
  | {
      readonly ok: true;
      /** The application's. */
      readonly port: number;
      readonly service?: StoredService;
      /** What the application is told in a PROXY header that it was asked for. */
      readonly proxied?: SocketAddress;
    }
  | {
      readonly ok: false;
      readonly code: "IP_MISMATCH" | "UNKNOWN_DESTINATION" | "NO_PORT" | "SELF_CALL";
      readonly reason: string;
    };

export interface InboundQuery {
  readonly authority: Authority;
  /** The pod's address that the tunnel was accepted on. */
  readonly localIp: Ip;
  readonly workload: Workload;
  /** Ports of our own in the pod, never to be called. */
  readonly ownPorts: ReadonlySet<number>;
  readonly missed?: Missed | undefined;
}

export function resolveInboundTarget(state: MeshState, query: InboundQuery): InboundTarget {
  const { authority, localIp, workload } = query;
  if (authority.kind === "address" && !addressIsServed(state, authority.ip, query)) {
    return {
      ok: false,
      code: "IP_MISMATCH",
      reason: `ip mismatch: ${authority.ip} was requested from the pod at ${localIp}`,
    };
  }
  const resolved: PortOrRefusal =
    authority.kind === "address" ? { port: authority.port } : hostnamePort(state, authority, query);
  if ("code" in resolved) return { ok: false, ...resolved };
  const port = workload.applicationTunnel?.port ?? resolved.port;
  for (const called of [resolved.port, port]) {
    if (!query.ownPorts.has(called)) continue;
    const reason = `port ${called} is ztunnel's own: recursive call refused`;
    return { ok: false, code: "SELF_CALL", reason };
  }
  if (workload.applicationTunnel?.protocol !== "PROXY") return { ok: true, ...resolved, port };
  const proxied = authority.kind === "address" ? authority : vipOf(resolved, authority, workload);
  return proxied === undefined
    ? noVip(authority)
    : { ok: true, ...resolved, port, proxied: { ip: proxied.ip, port: proxied.port } };
}

/** A PROXY header holds no hostname: an address of the service, of our network and IPv4 if it can be. */
function vipOf(
  { service }: { readonly service?: StoredService },
  { port }: Authority,
  { network }: Workload,
): SocketAddress | undefined {
  const vips = service?.service.vips ?? [];
  const near = vips.filter((vip) => vip.network === network);
  const vip = near.find(({ ip }) => ipFamily(ip) === 4) ?? near[0] ?? vips[0];
  return vip && { ip: vip.ip, port };
}

function noVip(authority: Authority): InboundTarget {
  const name = authority.kind === "hostname" ? authority.hostname : authority.ip;
  const reason = `service ${name} has no address to tell the application in a PROXY header`;
  return { ok: false, code: "UNKNOWN_DESTINATION", reason };
}

/** The pod's own address, any when it has an application tunnel, or one whose waypoint the pod is. */
function addressIsServed(state: MeshState, ip: Ip, query: InboundQuery): boolean {
  const { localIp, workload } = query;
  if (ip === localIp || workload.applicationTunnel !== undefined) return true;
  const address = { network: workload.network, ip };
  const found = state.findAddress(address, undefined);
  if (found === undefined) query.missed?.(addressKey(address));
  return waypointsOf(found).some((waypoint) => isAttached(state, waypoint, query));
}

/** Every waypoint that traffic to an address may be sent through, the weighted ones too. */
function waypointsOf(found: FoundAddress | undefined): readonly GatewayAddress[] {
  const { waypoint } = (found?.kind === "service" ? found.found.service : found?.workload) ?? {};
  const plain = waypoint === undefined ? [] : [waypoint];
  if (found?.kind !== "service") return plain;
  return [...plain, ...found.found.service.weightedWaypoints.map((weighted) => weighted.waypoint)];
}

function isAttached(
  state: MeshState,
  gateway: GatewayAddress,
  { workload, localIp, missed }: InboundQuery,
): boolean {
  const { destination } = gateway;
  const service =
    destination.kind === "address"
      ? state.services.byAddress(destination, workload.namespace)
      : state.services.byKey(`${destination.namespace}/${destination.hostname}`);
  if (service !== undefined) return service.endpoints.has(workload.uid);
  const owner =
    destination.kind === "address"
      ? state.workloadByAddress(destination)
      : state.workloadByHostname(destination.namespace, destination.hostname);
  if (owner === undefined) missed?.(gatewayKey(gateway));
  return owner?.addresses.includes(localIp) ?? false;
}

type PortOrRefusal =
  | { readonly port: number; readonly service?: StoredService }
  | { readonly code: "UNKNOWN_DESTINATION" | "NO_PORT"; readonly reason: string };

function hostnamePort(
  state: MeshState,
  { hostname, port }: { hostname: string; port: number },
  { workload, missed }: InboundQuery,
): PortOrRefusal {
  const { namespace } = workload;
  const service = state.services.byHostname(hostname, namespace);
  if (service === undefined) {
    missed?.(serviceKey({ namespace, hostname }));
    return { code: "UNKNOWN_DESTINATION", reason: `hostname ${hostname} is not a known service` };
  }
  const target =
    service.endpoints.get(workload.uid)?.ports.get(port) || service.service.ports.get(port);
  if (!target) {
    const name = serviceKey(service.service);
    return { code: "NO_PORT", reason: `service ${name} maps no port ${port} to this workload` };
  }
  return { port: target, service };
}
