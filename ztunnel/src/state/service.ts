// A service and the endpoints that workloads contribute to it.

import type { Cidr } from "@ambit/common/net/cidr.ts";
import type { IpFamily } from "@ambit/common/net/ip.ts";
import type { GatewayAddress, NetworkAddress, PortMap, Workload } from "./workload.ts";

export const SCOPES = ["region", "zone", "subzone", "node", "cluster", "network"] as const;
export type Scope = (typeof SCOPES)[number];

export interface LoadBalancer {
  readonly mode: "standard" | "strict" | "failover" | "passthrough";
  readonly routingPreferences: readonly Scope[];
  /** False: only healthy endpoints are taken in. */
  readonly allowUnhealthy: boolean;
}

export interface WeightedWaypoint {
  readonly waypoint: GatewayAddress;
  readonly weight: number;
}

export interface Service {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly vips: readonly NetworkAddress[];
  readonly cidrVips: readonly { readonly network: string; readonly cidr: Cidr }[];
  readonly ports: PortMap;
  readonly subjectAltNames: readonly string[];
  readonly waypoint?: GatewayAddress;
  readonly weightedWaypoints: readonly WeightedWaypoint[];
  readonly loadBalancer: LoadBalancer;
  /** Families that may be used; empty means any. */
  readonly ipFamilies: readonly IpFamily[];
  /** Wins ties for a hostname or VIP. */
  readonly canonical: boolean;
  /** Only clients of its own namespace may see it. */
  readonly namespacePrivate: boolean;
}

/** What a workload contributes to a service: itself, as it was when it entered, and its ports. */
export interface Endpoint {
  readonly workload: Workload;
  readonly ports: PortMap;
}

/** "namespace/hostname": a service's resource name. */
export function serviceKey(service: { namespace: string; hostname: string }): string {
  return `${service.namespace}/${service.hostname}`;
}
