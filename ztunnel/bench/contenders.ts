// Who is measured: no mesh at all, our ztunnel in its modes, and a peer's binary given by path.

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { WorkloadRequestSchema } from "@ambit/api/gen/istio/zds_pb.ts";
import { openNetns } from "@ambit/common/sys/netns.ts";
import { parseIp } from "@ambit/common/net/ip.ts";
import { listenSeqpacket, SeqpacketSocket } from "@ambit/common/sys/seqpacket.ts";
import { SteeredNode } from "../src/testing/steered-node.ts";
import { startMesh } from "./mesh.ts";
import { BULK_PORT, CLIENT_IP, HTTP_PORT, SERVER_IP, type Topology } from "./topology.ts";

export interface Contender {
  readonly name: string;
  /** Brings it up, ready to be measured, in a mesh of its two workloads and `others` more. */
  start(topology: Topology, others?: number): Promise<Running>;
}

export interface Running {
  /** Its proxies; none without a mesh. */
  readonly processes: readonly ChildProcess[];
  stop(): Promise<void>;
}

const OWN_TREE = resolve(import.meta.dirname, "../..");
const OURS = checkout("ambit", OWN_TREE);
const NODE = process.execPath;
const PACKET_MARK = "1337";
/** Ten thousand workloads take a busy machine a while. */
const START_TIMEOUT_MS = 60_000;

/** A checkout of this repository, installed; `name` is what its contenders are called. */
export function checkout(name: string, tree: string): { name: string; main: string } {
  return { name, main: resolve(tree, "ztunnel/src/main.ts") };
}

export const noMesh: Contender = {
  name: "no mesh",
  start: () => Promise.resolve({ processes: [], stop: () => Promise.resolve() }),
};

/** What pods that are not in the mesh pay for those that are: the node's programs run for their sockets, too. */
export const bystander: Contender = {
  name: "no mesh, beside pods redirected by eBPF",
  start: (topology) => {
    const node = new SteeredNode("node", topology.cgroup, []);
    return Promise.resolve({ processes: [], stop: () => Promise.resolve(node.remove()) });
  },
};

/** Two ztunnels in dedicated mode, one per side, as if on two nodes. */
export function crossNode(name: string, command: readonly string[]): Contender {
  return {
    name,
    start: async (topology, others = 0) => {
      const folder = mkdtempSync(join(tmpdir(), "ambit-bench-"));
      const nodes = { clientNode: "node-client", serverNode: "node-server" };
      const mesh = await startMesh(topology, ["client", "server"], folder, { ...nodes, others });
      const start = (side: "client" | "server") =>
        topology.spawn(side, command, {
          ...common(folder),
          ...mesh.env(side),
          PROXY_MODE: "dedicated",
          NODE_NAME: `node-${side}`,
          PROXY_WORKLOAD_INFO: `default/${side}/${side}`,
        });
      const processes = [start("client"), start("server")];
      topology.redirect("client");
      topology.redirect("server");
      await reachable(topology);
      const stopAll = async () => {
        await stop(topology, processes, folder);
        mesh.close();
      };
      return { processes, stop: stopAll };
    },
  };
}

/** One shared ztunnel that holds both pods, handed over as the node agent does. */
export function sameNode(mode: "local" | "hbone", { name, main } = OURS): Contender {
  return {
    name: `${name}, same node, ${mode}`,
    start: async (topology, others = 0) => {
      const folder = mkdtempSync(join(tmpdir(), "ambit-bench-"));
      const mesh = await startMesh(topology, ["node"], folder, { ...ONE_NODE, others });
      const socket = join(folder, "zds.sock");
      const agent = serveZds(topology, socket);
      const ztunnel = topology.spawn("node", [NODE, main], {
        ...common(folder),
        ...mesh.env("node"),
        NODE_NAME: "node",
        INPOD_UDS: socket,
        SAME_NODE: mode,
      });
      await agent.enrolled;
      topology.redirect("client");
      topology.redirect("server");
      await reachable(topology);
      const stopAll = async () => {
        await stop(topology, [ztunnel], folder);
        agent.close();
        mesh.close();
      };
      return { processes: [ztunnel], stop: stopAll };
    },
  };
}

/** The same where eBPF brings the connections: the first of them, when the mode is direct. */
export function steered(mode: "local" | "direct", { name, main } = OURS): Contender {
  return {
    name: `${name}, same node, ${mode}${mode === "local" ? " by eBPF" : ""}`,
    start: async (topology, others = 0) => {
      const folder = mkdtempSync(join(tmpdir(), "ambit-bench-"));
      const mesh = await startMesh(topology, ["node"], folder, { ...ONE_NODE, others });
      const socket = join(folder, "zds.sock");
      const pods = [
        { netns: topology.netns("client"), ip: parseIp(CLIENT_IP)! },
        { netns: topology.netns("server"), ip: parseIp(SERVER_IP)! },
      ];
      const node = topology.netns("node");
      const steering = new SteeredNode("node", topology.cgroup, pods, node);
      const agent = serveZds(topology, socket, SLOTS);
      const ztunnel = topology.cgroup.startProxy(() =>
        topology.spawn("node", [NODE, main], {
          ...common(folder),
          ...mesh.env("node"),
          NODE_NAME: "node",
          INPOD_UDS: socket,
          SAME_NODE: mode,
          BPF_FS: steering.bpffs,
        }),
      );
      const stop = async () => {
        ztunnel.kill("SIGKILL");
        await once(ztunnel, "exit");
        agent.close();
        mesh.close();
        steering.remove();
        rmSync(folder, { recursive: true, force: true });
      };
      try {
        await agent.enrolled;
        steering.capture();
        await reachable(topology);
      } catch (error) {
        await stop();
        throw error;
      }
      return { processes: [ztunnel], stop };
    },
  };
}

export function ambitCrossNode({ name, main } = OURS): Contender {
  return crossNode(`${name}, cross-node`, [NODE, main]);
}

function common(folder: string): Record<string, string> {
  return {
    FAKE_CA: "true",
    FAKE_CA_FOLDER: join(folder, "ca"),
    ENABLE_ORIG_SRC: "false",
    PACKET_MARK,
    RUST_LOG: "error",
    ISTIO_META_DNS_CAPTURE: "false",
    NODE_COMPILE_CACHE: join(tmpdir(), "ambit-bench-compile-cache"),
  };
}

const ONE_NODE = { clientNode: "node", serverNode: "node" } as const;

/** The pods' places on a node that steers their connections. */
const SLOTS = { client: 0, server: 1 } as const;

/** `slots`: the pods' connections are steered. */
function serveZds(
  topology: Topology,
  path: string,
  slots?: typeof SLOTS,
): { enrolled: Promise<void>; close(): void } {
  const enrolled = Promise.withResolvers<void>();
  const listener = listenSeqpacket(path, (fd) => {
    const requests = [
      ...(["client", "server"] as const).map((side) => addRequest(side, slots?.[side])),
      snapshotRequest(),
    ];
    const next = () => {
      const request = requests.shift();
      if (request === undefined) return enrolled.resolve();
      const netns = request.side && openNetns(`/run/netns/${topology.netns(request.side)}`);
      socket.send(request.bytes, netns?.fd);
      netns?.close();
    };
    const socket = new SeqpacketSocket(fd, { onPacket: next, onClose: () => undefined });
  });
  return { enrolled: enrolled.promise, close: () => listener.close() };
}

function addRequest(
  side: "client" | "server",
  steeringSlot: number | undefined,
): { bytes: Uint8Array; side?: "client" | "server" } {
  const workloadInfo = { name: side, namespace: "default", serviceAccount: side };
  const request = create(WorkloadRequestSchema, {
    payload: {
      case: "add",
      value: { uid: side, workloadInfo, ...(steeringSlot !== undefined && { steeringSlot }) },
    },
  });
  return { bytes: toBinary(WorkloadRequestSchema, request), side };
}

function snapshotRequest(): { bytes: Uint8Array; side?: "client" | "server" } {
  const request = create(WorkloadRequestSchema, { payload: { case: "snapshotSent", value: {} } });
  return { bytes: toBinary(WorkloadRequestSchema, request) };
}

/** The servers behind the proxies: nginx for requests, iperf3 for bytes. */
export async function startServers(topology: Topology): Promise<() => Promise<void>> {
  const folder = mkdtempSync(join(tmpdir(), "ambit-bench-"));
  const config = join(folder, "nginx.conf");
  writeFileSync(config, nginxConfig(folder));
  const processes = [
    topology.spawn("server", [
      "nginx",
      "-c",
      config,
      "-p",
      folder,
      "-e",
      join(folder, "error.log"),
    ]),
    topology.spawn("server", ["iperf3", "-s", "-p", String(BULK_PORT)]),
  ];
  await reachable(topology);
  return () => stop(topology, processes, folder);
}

function nginxConfig(folder: string): string {
  return `daemon off; master_process off; worker_processes 1; pid ${folder}/nginx.pid;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 3600;
  client_body_temp_path ${folder}; proxy_temp_path ${folder}; fastcgi_temp_path ${folder};
  uwsgi_temp_path ${folder}; scgi_temp_path ${folder};
  server { listen ${HTTP_PORT} backlog=4096; location / { return 200 "hello\\n"; } }
}
`;
}

/** Waits until a request gets through. */
async function reachable(topology: Topology): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    try {
      topology.run("client", [
        "curl",
        "-sf",
        "-m",
        "1",
        "-o",
        "/dev/null",
        `http://${SERVER_IP}:${HTTP_PORT}/`,
      ]);
      return;
    } catch (error) {
      if (performance.now() > deadline)
        throw new Error("the server cannot be reached through the contender", { cause: error });
      await delay(100);
    }
  }
}

async function stop(
  topology: Topology,
  processes: readonly ChildProcess[],
  folder: string,
): Promise<void> {
  topology.unredirect("client");
  topology.unredirect("server");
  await Promise.all(
    processes.map(async (child) => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await once(child, "exit");
    }),
  );
  rmSync(folder, { recursive: true, force: true });
}
