// A cgroup per node, as a Kubernetes node has one: redirection by eBPF attaches its programs there, and tells
// ztunnel's sockets from the pods' by the cgroup below that each runs in. One more for this process, which
// plays the kubelet of every node: by it probes are known. Only where eBPF may be used.

import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { errorCode } from "@ambit/common/process/errors.ts";
import { isBpffs } from "@ambit/common/sys/bpffs.ts";
import { cgroupOfProcess, findCgroup2 } from "@ambit/common/sys/cgroup.ts";
import { callUnmount } from "@ambit/common/sys/libc.ts";
import type { Home } from "./home.ts";
import { sendSignal } from "./leftovers.ts";

/** What becomes of a cgroup when its last process has ended. */
const EMPTY_TIMEOUT_MS = 5_000;
const EMPTY_POLL_MS = 10;

/** Where the cgroup of a node of this mesh is, or would be. */
export function nodeCgroup(home: Home, node: string): string {
  return join(findCgroup2() ?? "/sys/fs/cgroup", `${home.prefix}${node}`);
}

export function agentCgroup(home: Home, node: string): string {
  return join(nodeCgroup(home, node), "cni-agent");
}

/** Nobody else runs in it: its sockets are exempt from capture. */
export function ztunnelCgroup(home: Home, node: string): string {
  return join(nodeCgroup(home, node), "ztunnel");
}

export function podCgroup(home: Home, node: string, namespace: string, name: string): string {
  return join(nodeCgroup(home, node), "pods", `${namespace}.${name}`);
}

/** Where the process is that probes pods, and nothing else that opens connections from where it does. */
export function kubeletCgroup(home: Home): string {
  return join(findCgroup2() ?? "/sys/fs/cgroup", `${home.prefix}kubelet`);
}

/**
 * Moves this process to kubelet's cgroup, until disposed of: then it is where it was before. Throws where
 * that is not allowed, or without cgroup v2.
 */
export function enterKubeletCgroup(home: Home): Disposable {
  const mount = findCgroup2();
  if (mount === undefined) throw new Error("no cgroup v2 is mounted");
  const before = cgroupOfProcess(mount, "self");
  const folder = kubeletCgroup(home);
  const move = (to: string) => writeFileSync(join(to, "cgroup.procs"), `${process.pid}`);
  mkdirSync(folder, { recursive: true });
  move(folder);
  let inside = true;
  const leave = () => {
    if (!inside) return;
    inside = false;
    try {
      move(before);
    } catch {
      // A session's cgroup goes with its last process: all others may have ended meanwhile.
      move(mount);
    }
  };
  return { [Symbol.dispose]: leave };
}

/** Makes a node's cgroups. Throws where that is not allowed, or without cgroup v2. */
export function createNodeCgroups(home: Home, node: string): void {
  if (findCgroup2() === undefined) throw new Error("no cgroup v2 is mounted");
  const folders = [agentCgroup(home, node), ztunnelCgroup(home, node)];
  for (const folder of [...folders, join(nodeCgroup(home, node), "pods")]) {
    mkdirSync(folder, { recursive: true });
  }
}

/** The cgroups of this mesh, whoever made them. */
export function findMeshCgroups(home: Home): string[] {
  const mount = findCgroup2();
  if (mount === undefined) return [];
  return readdirSync(mount)
    .filter((name) => name.startsWith(home.prefix))
    .filter((name) => /^(node-\d+|kubelet)$/.test(name.slice(home.prefix.length)))
    .map((name) => join(mount, name));
}

/** Ends what still runs in a cgroup and below, and removes it. */
export async function removeCgroup(folder: string): Promise<void> {
  const deadlineMs = performance.now() + EMPTY_TIMEOUT_MS;
  for (;;) {
    for (const pid of processesBelow(folder)) sendSignal(pid, "SIGKILL");
    try {
      return removeTree(folder);
    } catch (error) {
      if (errorCode(error) !== "EBUSY" || performance.now() > deadlineMs) throw error;
    }
    await delay(EMPTY_POLL_MS);
  }
}

/** Unpins everything: programs are detached with the last of their pins. */
export function removeBpffs(folder: string): void {
  while (isBpffs(folder)) callUnmount(folder);
  try {
    rmdirSync(folder);
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}

function processesBelow(folder: string): number[] {
  return unlessGone([], () => {
    const own = readFileSync(join(folder, "cgroup.procs"), "utf8").split("\n");
    const pids = own.filter((line) => line !== "").map(Number);
    const others = pids.filter((pid) => pid !== process.pid);
    return [...others, ...children(folder).flatMap(processesBelow)];
  });
}

/** Files of a cgroup cannot be removed, and need not be. */
function removeTree(folder: string): void {
  unlessGone(undefined, () => {
    for (const child of children(folder)) removeTree(child);
    rmdirSync(folder);
  });
}

function children(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(folder, name));
}

function unlessGone<T>(otherwise: T, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENODEV") return otherwise;
    throw error;
  }
}
