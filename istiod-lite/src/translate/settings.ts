// What translation needs to know of the mesh as a whole.

import type { SameNode, ServiceEntryVisibility } from "../mesh-config/mesh-config.ts";

export interface MeshSettings {
  readonly clusterId: string;
  readonly clusterDomain: string;
  readonly trustDomain: string;
  /** Where workloads are that do not say. The root namespace's topology.istio.io/network label beats it. */
  readonly network: string;
  readonly rootNamespace: string;
  /** Dry-run policies are sent; ztunnels of old, which would enforce them, must not be there. */
  readonly dryRunPolicies: boolean;
  /** Workloads behind a waypoint let nobody but it in. */
  readonly autoAllowWaypoints: boolean;
  /** What pods get that say nothing, nor their namespace; undefined: their ztunnel's own setting. */
  readonly sameNode?: SameNode | undefined;
  /** How far ServiceEntries are seen; undefined: everywhere. */
  readonly serviceEntryVisibility?: ServiceEntryVisibility | undefined;
}

/** The trust domain as a workload states it: the usual one is left out. */
export function trustDomainField({ trustDomain }: MeshSettings): string {
  return trustDomain === "cluster.local" ? "" : trustDomain;
}
