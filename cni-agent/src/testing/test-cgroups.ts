// A node as eBPF redirection sees it, for tests that need root: a cgroup for pods and one for ztunnel, and
// a BPF file system of its own. The test process lives in the pods' cgroup, as its applications would.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureBpffs } from "@ambit/common/sys/bpffs.ts";
import { cgroupOfProcess, findCgroup2 } from "@ambit/common/sys/cgroup.ts";

export interface TestCgroups {
  /** The node's cgroup; its children are `apps`, `ztunnel` and `kubelet`. */
  readonly node: string;
  readonly apps: string;
  readonly ztunnel: string;
  readonly kubelet: string;
  readonly bpffs: string;
  /** Until disposed of, what this process does is done from that cgroup. */
  enter(cgroup: string): Disposable;
  remove(): void;
}

let counter = 0;

export function createTestCgroups(): TestCgroups {
  const mount = findCgroup2();
  if (mount === undefined) throw new Error("these tests need cgroup v2 mounted");
  const home = cgroupOfProcess(mount, "self");
  const node = join(mount, `ambit-test-${process.pid}-${counter++}`);
  const parts = [join(node, "apps"), join(node, "ztunnel"), join(node, "kubelet")] as const;
  const [apps, ztunnel, kubelet] = parts;
  for (const folder of [node, ...parts]) mkdirSync(folder);
  const bpffs = mkdtempSync(join(tmpdir(), "ambit-bpffs-"));
  ensureBpffs(bpffs);
  moveTo(apps);
  return {
    node,
    apps,
    ztunnel,
    kubelet,
    bpffs,
    enter: (cgroup) => {
      moveTo(cgroup);
      return { [Symbol.dispose]: () => moveTo(apps) };
    },
    remove: () => {
      moveTo(home);
      execFileSync("umount", ["-l", bpffs]);
      rmdirSync(bpffs);
      for (const folder of [...parts, node]) rmdirSync(folder);
    },
  };
}

/** Moves this process, all its threads included. */
function moveTo(cgroup: string): void {
  writeFileSync(join(cgroup, "cgroup.procs"), `${process.pid}`);
}
