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
