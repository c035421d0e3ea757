// Where kubelet runs: the cgroup by which its sockets are told from all others of the node. Named by the
// settings, or found by the processes that are called kubelet; then nobody else may be in it.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { CgroupView } from "@ambit/common/sys/cgroup.ts";

/** The name by which the kernel knows kubelet's process. */
const PROCESS_NAME = "kubelet";

export type KubeletCheck = "kubelet" | "kubelet-cgroup" | "kubelet-attach";

/** Why probes cannot be known by kubelet's sockets: which check failed, and what it found. */
export class KubeletError extends Error {
  override readonly name = "KubeletError";
  readonly check: KubeletCheck;

  constructor(check: KubeletCheck, message: string, cause?: unknown) {
    super(message, { cause });
    this.check = check;
  }
}

interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly name: string;
  /** As /proc tells it to this process: to be compared only. */
  readonly cgroup: string;
}

/**
 * The folder of the cgroup of the node's kubelet. Throws KubeletError when there is none, or one that
 * others share: their sockets would be taken for kubelet's.
 */
export function findKubeletCgroup(cgroups: CgroupView, procFolder: string): string {
  const processes = readProcesses(procFolder);
  const kubelet = processes.find(({ name }) => name === PROCESS_NAME);
  if (kubelet === undefined) {
    throw new KubeletError("kubelet", "no process of this node is called kubelet");
  }
  const stranger = processes.find(
    (one) => isIn(one.cgroup, kubelet.cgroup) && !descends(one, kubelet, processes),
  );
  if (stranger !== undefined) {
    const { name, pid } = stranger;
    throw new KubeletError(
      "kubelet-cgroup",
      `kubelet's cgroup ${kubelet.cgroup} holds ${name} (process ${pid}) too`,
    );
  }
  return cgroups.folderOf(kubelet.pid);
}

function isIn(cgroup: string, ancestor: string): boolean {
  return cgroup === ancestor || ancestor === "/" || cgroup.startsWith(`${ancestor}/`);
}

/** Whether a process is kubelet, or one that it started. */
function descends(one: Process, kubelet: Process, all: readonly Process[]): boolean {
  const byPid = new Map(all.map((process) => [process.pid, process]));
  const seen = new Set<number>();
  let at: Process | undefined = one;
  while (at !== undefined && !seen.has(at.pid)) {
    if (at.pid === kubelet.pid) return true;
    seen.add(at.pid);
    at = byPid.get(at.parent);
  }
  return false;
}

function readProcesses(procFolder: string): Process[] {
  const pids = readdirSync(procFolder).filter((name) => /^\d+$/.test(name));
  return pids.flatMap((pid) => readProcess(procFolder, pid) ?? []);
}

/** Undefined for a process that has just ended, and where cgroups are not of version 2. */
function readProcess(procFolder: string, pid: string): Process | undefined {
  try {
    const read = (file: string) => readFileSync(join(procFolder, pid, file), "utf8");
    const [, cgroup] = /^0::(.*)$/m.exec(read("cgroup")) ?? [];
    if (cgroup === undefined) return undefined;
    // The name may hold anything, brackets too: what follows it begins after the last one.
    const [, name = "", parent = ""] = /^\d+ \((.*)\) \S (\d+) /s.exec(read("stat")) ?? [];
    return { pid: Number(pid), parent: Number(parent), name, cgroup };
  } catch {
    return undefined;
  }
}
