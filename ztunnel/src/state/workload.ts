// What the proxy knows of a workload and a service: our own readonly types, parsed once from the wire.

import type { Ip } from "@ambit/common/net/ip.ts";
import type { Identity } from "@ambit/common/tls/identity.ts";
import type { SameNodePath } from "../config.ts";
import type { WorkloadKind } from "@ambit/common/hbone/baggage.ts";

/** The workload's resource name, unique over the mesh. */
export type WorkloadUid = string & { readonly __brand: "WorkloadUid" };

export interface NetworkAddress {
  readonly network: string;
  readonly ip: Ip;
}

/** A waypoint or network gateway, by address or by hostname. */
export interface GatewayAddress {
  readonly destination:
    | ({ readonly kind: "address" } & NetworkAddress)
    | { readonly kind: "hostname"; readonly namespace: string; readonly hostname: string };
  readonly hboneMtlsPort: number;
}

export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

export interface ApplicationTunnel {
  readonly protocol: "NONE" | "PROXY";
  /** undefined: the port of the request. */
  readonly port?: number;
}

/** Service port to target port; 0 is a named port that the endpoint must map. */
export type PortMap = ReadonlyMap<number, number>;

export interface Workload {
  readonly uid: WorkloadUid;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly trustDomain: string;
  readonly network: string;
  readonly addresses: readonly Ip[];
  /** To resolve by DNS when there is no address. */
  readonly hostname: string;
  readonly node: string;
  readonly protocol: "HBONE" | "NONE";
  readonly nativeTunnel: boolean;
  readonly waypoint?: GatewayAddress;
  readonly networkGateway?: GatewayAddress;
  readonly applicationTunnel?: ApplicationTunnel;
  readonly workloadName: string;
  readonly workloadKind: WorkloadKind;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly clusterId: string;
  readonly locality: Locality;
  readonly healthy: boolean;
  /** How it wants to reach, and be reached by, pods of its node; undefined: as the node has it. */
  readonly sameNode?: SameNodePath;
  readonly hostNetwork: boolean;
  readonly capacity: number;
  /** Keys of the policies that select this workload by labels. */
  readonly authorizationPolicies: readonly string[];
  /** Service key ("namespace/hostname") to this workload's ports. */
  readonly services: ReadonlyMap<string, PortMap>;
}

export function workloadIdentity(workload: Workload): Identity {
  const { trustDomain, namespace, serviceAccount } = workload;
  return { trustDomain, namespace, serviceAccount };
}
