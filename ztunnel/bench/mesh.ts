// The mesh that a contender is told of: its two pods, from a file that both makes of ztunnel read; or
// these among many more from a control plane, as in production.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openNetns } from "@ambit/common/sys/netns.ts";
import { serves } from "../src/state/testing-mesh.ts";
import { ControlPlane } from "../test/control-plane.ts";
import { CLIENT_IP, type Place, SERVER_IP, type Topology } from "./topology.ts";

/** Where the two pods run, and how many others there are. */
export interface MeshPlan {
  readonly clientNode: string;
  readonly serverNode: string;
  readonly others: number;
}

export interface Mesh {
  /** What makes a ztunnel in that place follow it. */
  env(place: Place): Readonly<Record<string, string>>;
  close(): void;
}

const PODS_OF_DEPLOYMENT = 10;
const NAMESPACES = 100;
const NODES = 200;

/** `places` are those that have a ztunnel; `folder` keeps the file. */
export function startMesh(
  topology: Topology,
  places: readonly Place[],
  folder: string,
  plan: MeshPlan,
): Promise<Mesh> {
  return plan.others === 0
    ? Promise.resolve(fileMesh(folder, plan))
    : served(topology, places, plan);
}

function fileMesh(folder: string, { clientNode, serverNode }: MeshPlan): Mesh {
  const path = join(folder, "mesh.yaml");
  writeFileSync(path, meshFile(clientNode, serverNode));
  return {
    env: () => ({ LOCAL_XDS_PATH: path, XDS_ADDRESS: "" }),
    close: () => undefined,
  };
}

async function served(topology: Topology, places: readonly Place[], plan: MeshPlan): Promise<Mesh> {
  const controlPlanes = new Map<Place, ControlPlane>();
  for (const place of places) {
    using netns = openNetns(`/run/netns/${topology.netns(place)}`);
    const controlPlane = await ControlPlane.start(netns.fd);
    describe(controlPlane, plan);
    controlPlanes.set(place, controlPlane);
  }
  return {
    env: (place) => controlPlanes.get(place)!.env,
    close: () => controlPlanes.forEach((controlPlane) => controlPlane[Symbol.dispose]()),
  };
}

/** The two pods, and deployments of ten pods with a service each. */
function describe(controlPlane: ControlPlane, { clientNode, serverNode, others }: MeshPlan): void {
  const pod = (name: string, ip: string, node: string) =>
    controlPlane.workload(name, [ip], {
      uid: `Kubernetes//Pod/default/${name}`,
      namespace: "default",
      node,
    });
  pod("client", CLIENT_IP, clientNode);
  pod("server", SERVER_IP, serverNode);
  for (let i = 0; i < others; i++) {
    const deployment = Math.floor(i / PODS_OF_DEPLOYMENT);
    if (i % PODS_OF_DEPLOYMENT === 0) addService(controlPlane, deployment);
    addPod(controlPlane, deployment, i);
  }
}

function addService(controlPlane: ControlPlane, deployment: number): void {
  const namespace = `team-${deployment % NAMESPACES}`;
  const name = `deployment-${deployment}`;
  const vip = `10.96.${deployment >> 8}.${deployment & 255}`;
  const hostname = `${name}.${namespace}.svc.cluster.local`;
  controlPlane.service(name, [vip], { namespace, hostname });
}

/** As Istio describes a pod: its name has the replica set's and its own random part. */
function addPod(controlPlane: ControlPlane, deployment: number, i: number): void {
  const namespace = `team-${deployment % NAMESPACES}`;
  const workloadName = `deployment-${deployment}`;
  const name = `${workloadName}-${hash(deployment, 10)}-${hash(i, 5)}`;
  const [services] = Object.values(serves(workloadName));
  controlPlane.workload(name, [`10.128.${i >> 8}.${i & 255}`], {
    uid: `Kubernetes//Pod/${namespace}/${name}`,
    namespace,
    serviceAccount: workloadName,
    node: `node-${i % NODES}.europe-west1.internal`,
    workloadName,
    canonicalName: workloadName,
    canonicalRevision: "latest",
    clusterId: "Kubernetes",
    locality: { region: "europe-west1", zone: `europe-west1-${"bcd"[i % 3]}` },
    services: { [`${namespace}/${workloadName}.${namespace}.svc.cluster.local`]: services! },
  });
}

function hash(seed: number, length: number): string {
  return Math.imul(seed + 1, 0x9e3779b1)
    .toString(36)
    .replace("-", "z")
    .padStart(length, "x")
    .slice(-length);
}

/** What both our ztunnel and Istio's read: each workload needs `services` and its node. */
function meshFile(clientNode: string, serverNode: string): string {
  const workload = (name: string, ip: string, node: string) => ({
    uid: `cluster//Pod/default/${name}`,
    name,
    namespace: "default",
    serviceAccount: name,
    workloadIps: [ip],
    protocol: "HBONE",
    node,
    network: "",
    services: {},
  });
  const workloads = [
    workload("client", CLIENT_IP, clientNode),
    workload("server", SERVER_IP, serverNode),
  ];
  return JSON.stringify({ workloads });
}
