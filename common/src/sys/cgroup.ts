// cgroup v2 as far as attaching BPF programs needs it: where the hierarchy is mounted, which cgroup a
// process is in, and the number by which programs know a cgroup.

import { closeSync, openSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { CLONE_NEWCGROUP } from "./constants.ts";
import { call, callRaw } from "./libc.ts";

/** Where cgroup2 is mounted, by the text of /proc/self/mounts; undefined when it is not. */
export function findCgroup2(
  mounts = readFileSync("/proc/self/mounts", "utf8"),
): string | undefined {
  for (const line of mounts.split("\n")) {
    const [, path, type] = line.split(" ");
    if (type === "cgroup2") return path;
  }
  return undefined;
}

/** The hierarchy as somebody sees it, and where in it a process is. */
export interface CgroupView {
  /** The folder of what is the root for them. */
  readonly root: string;
  /** Throws Node's ENOENT when the process is gone. */
  folderOf(pid: number | "self"): string;
}

/** As this process sees it; undefined without cgroup v2. */
export function ownCgroups(): CgroupView | undefined {
  const root = findCgroup2();
  return root === undefined ? undefined : { root, folderOf: (pid) => cgroupOfProcess(root, pid) };
}

/**
 * As the first process sees it, whose root holds everything of the node: in a node that is itself a
 * container, that container's. This process may have a cgroup namespace of its own. Undefined without
 * cgroup v2, or without the right to look.
 */
export function nodeCgroups(procFolder: string): CgroupView | undefined {
  try {
    const mount = findCgroup2(readFileSync(join(procFolder, "1/mounts"), "utf8"));
    if (mount === undefined) return undefined;
    const root = join(procFolder, "1/root", mount);
    statSync(root);
    const folderOf = (pid: number | "self") => {
      const number = pid === "self" ? process.pid : pid;
      return inCgroupns(join(procFolder, "1/ns/cgroup"), () => cgroupOfProcess(root, number));
    };
    return { root, folderOf };
  } catch {
    return undefined;
  }
}

/** What /proc says of processes' cgroups depends on who asks. */
function inCgroupns<T>(path: string, action: () => T): T {
  const [target, home] = [openSync(path, "r"), openSync("/proc/thread-self/ns/cgroup", "r")];
  try {
    call("setns", "(the node's cgroup namespace)", target, CLONE_NEWCGROUP);
    try {
      return action();
    } finally {
      if (callRaw("setns", home, CLONE_NEWCGROUP) !== 0) process.abort();
    }
  } finally {
    closeSync(target);
    closeSync(home);
  }
}

/** The folder of a process's cgroup below `mount`. Throws Node's ENOENT when the process is gone. */
export function cgroupOfProcess(mount: string, pid: number | "self"): string {
  const text = readFileSync(`/proc/${pid}/cgroup`, "utf8");
  const [, path = "/"] = /^0::(.*)$/m.exec(text) ?? [];
  return path === "/" ? mount : join(mount, path);
}

/** What bpf_get_current_cgroup_id() returns: the folder's inode number. */
export function cgroupId(folder: string): bigint {
  return statSync(folder, { bigint: true }).ino;
}

/** Whether `folder` is `ancestor` or lies below it. Both are absolute and normalized. */
export function isWithin(folder: string, ancestor: string): boolean {
  return (
    folder === ancestor || folder.startsWith(ancestor.endsWith("/") ? ancestor : `${ancestor}/`)
  );
}
