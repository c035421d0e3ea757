// What translation needs to know of the mesh as a whole.

export interface MeshSettings {
  readonly clusterId: string;
  readonly clusterDomain: string;
  readonly trustDomain: string;
  /** Where workloads are that do not say. The root namespace's topology.istio.io/network label beats it. */
  readonly network: string;
  readonly rootNamespace: string;
  /** Dry-run policies are sent; ztunnels of old, which would enforce them, must not be there. */
  readonly dryRunPolicies: boolean;
}

/** The trust domain as a workload states it: the usual one is left out. */
export function trustDomainField({ trustDomain }: MeshSettings): string {
  return trustDomain === "cluster.local" ? "" : trustDomain;
}
