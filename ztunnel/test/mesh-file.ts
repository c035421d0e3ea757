// Mesh files for whole ztunnels of any make: every field that another make wants is said.

import { stringify } from "yaml";

type Fields = Readonly<Record<string, unknown>>;

/** By default one that speaks HBONE on its own node, of no network. */
export function workload(name: string, ips: readonly string[], more: Fields = {}): Fields {
  return {
    uid: `c//Pod/default/${name}`,
    name,
    namespace: "default",
    serviceAccount: name,
    trustDomain: "cluster.local",
    workloadIps: ips,
    protocol: "HBONE",
    node: `node-${name}`,
    network: "",
    services: {},
    ...more,
  };
}

/** web.example, at "network/ip". */
export function service(vip: string, more: Fields): Fields {
  return { name: "web", namespace: "default", hostname: "web.example", vips: [vip], ...more };
}

/** Port to port, as both makes read it: numbers. */
export function ports(from: number, to: number): ReadonlyMap<number, number> {
  return new Map([[from, to]]);
}

export function meshFile(workloads: readonly Fields[], services: readonly Fields[]): string {
  return stringify({ workloads, services });
}
