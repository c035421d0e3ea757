// The BPF file system, where pinned objects outlive the processes that made them.

import { mkdirSync, statfsSync } from "node:fs";
import { errorCode } from "../process/errors.ts";
import { callMount } from "./libc.ts";

/** Where distributions mount it. */
export const DEFAULT_BPF_FS = "/sys/fs/bpf";

const BPF_FS_MAGIC = 0xcafe4a11;

export function isBpffs(folder: string): boolean {
  try {
    return statfsSync(folder).type === BPF_FS_MAGIC;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

/** Mounts bpffs at `folder` unless one is there. Throws SystemError: EPERM without CAP_SYS_ADMIN. */
export function ensureBpffs(folder: string): void {
  if (isBpffs(folder)) return;
  mkdirSync(folder, { recursive: true });
  callMount("bpf", folder, "bpf");
}
