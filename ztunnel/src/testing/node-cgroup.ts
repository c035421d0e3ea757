// A node's cgroup for tests and benches: one for what runs in pods, where this process and its children
// live until it is removed, and one for ztunnel. Sockets belong to where they were made.

import { mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cgroupOfProcess, findCgroup2 } from "@ambit/common/sys/cgroup.ts";

let nodes = 0;

export class NodeCgroup {
  readonly folder: string;
  readonly ztunnel: string;
  readonly #apps: string;
  readonly #home: string;

  /** From now on this process is one of the pods'. */
  constructor() {
    const mount = findCgroup2();
    if (mount === undefined) throw new Error("cgroup v2 is not mounted");
    this.#home = cgroupOfProcess(mount, "self");
    this.folder = join(mount, `ambit-node-${process.pid}-${nodes++}`);
    this.#apps = join(this.folder, "apps");
    this.ztunnel = join(this.folder, "ztunnel");
    for (const folder of [this.folder, this.#apps, this.ztunnel]) mkdirSync(folder);
    moveTo(this.#apps);
  }

  /** This process is one of its pods' again. */
  enter(): void {
    moveTo(this.#apps);
  }

  /** This process is back where it was before. */
  leave(): void {
    moveTo(this.#home);
  }

  /** What `start` starts is ztunnel's. */
  startProxy<T>(start: () => T): T {
    moveTo(this.ztunnel);
    try {
      return start();
    } finally {
      moveTo(this.#apps);
    }
  }

  /** No other process may be left in it. */
  remove(): void {
    this.leave();
    for (const folder of [this.#apps, this.ztunnel, this.folder]) rmdirSync(folder);
  }
}

/** This process, all its threads included. */
function moveTo(folder: string): void {
  writeFileSync(join(folder, "cgroup.procs"), `${process.pid}`);
}
