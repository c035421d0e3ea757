// What translation needs to know of the mesh as a whole.

export interface MeshSettings {
  readonly clusterId: string;
  readonly clusterDomain: string;
  readonly trustDomain: string;
  readonly network: string;
  readonly rootNamespace: string;
}
