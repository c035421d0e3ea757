// cgroup v2 as far as attaching BPF programs needs it: where the hierarchy is mounted, which cgroup a
// process is in, and the number by which programs know a cgroup.

import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";

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

/**
 * The cgroup that holds everything of this node: the root as the first process sees it, which in a node
 * that is itself a container is that container's. Undefined without cgroup v2.
 */
export function findNodeCgroup(procFolder: string): string | undefined {
  try {
    const mount = findCgroup2(readFileSync(join(procFolder, "1/mounts"), "utf8"));
    return mount === undefined ? undefined : join(procFolder, "1/root", mount);
  } catch {
    return undefined;
  }
}

/** The folder of a process's cgroup below `mount`. Throws Node's ENOENT when the process is gone. */
export function cgroupOfProcess(mount: string, pid: number | "self"): string {
  const text = readFileSync(`/proc/${pid}/cgroup`, "utf8");
  const [, path = "/"] = /^0::(.*)$/m.exec(text) ?? [];
  return join(mount, path);
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
