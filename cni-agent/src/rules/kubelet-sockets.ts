// Kubelet's probes known by kubelet's own sockets: a program at its cgroup gives each a pass, so that the
// application sees the node's address, and nobody else on the node is taken for kubelet. Owns whether that
// works now: a kubelet that is started anew has another cgroup, and until that is found probes need their
// addresses translated.

import { type FSWatcher, readFileSync, watch } from "node:fs";
import { join } from "node:path";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { type CgroupView, cgroupId } from "@ambit/common/sys/cgroup.ts";
import type { EbpfNode } from "./ebpf-node.ts";
import { findKubeletCgroup, KubeletError } from "./kubelet-cgroup.ts";

export interface KubeletSocketsOptions {
  readonly node: Pick<EbpfNode, "admitKubelet" | "dismissKubelets">;
  /** Kubelet's cgroup; found by its process when not given. */
  readonly cgroup: string | undefined;
  readonly cgroups: CgroupView;
  readonly procFolder: string;
}

interface Place {
  readonly folder: string;
  readonly id: bigint;
  readonly events: FSWatcher;
}

export class KubeletSockets implements Disposable {
  readonly #options: KubeletSocketsOptions;
  #place: Place | undefined;
  #problem: KubeletError | undefined;
  /** Called when `problem` has come or gone by itself. */
  onChange: () => void = () => {};

  constructor(options: KubeletSocketsOptions) {
    this.#options = options;
    this.#find();
  }

  /** Why kubelet's sockets are not known; undefined while they are. */
  get problem(): KubeletError | undefined {
    return this.#problem;
  }

  /** Looks whether what was found is still there, or whether there is something to be found now. */
  refresh(): void {
    const before = this.#problem?.message;
    if (this.#place === undefined) this.#find();
    else if (!isPopulated(this.#place)) this.#giveUp(gone(this.#place.folder));
    if (before !== this.#problem?.message) this.onChange();
  }

  [Symbol.dispose](): void {
    this.#place?.events.close();
    this.#place = undefined;
  }

  #find(): void {
    const { node } = this.#options;
    try {
      const folder = this.#folder();
      const id = attempt("kubelet-cgroup", () => cgroupId(folder));
      const events = watch(join(folder, "cgroup.events"), { persistent: false });
      events.on("change", () => this.refresh());
      events.on("error", () => this.refresh());
      this.#place = { folder, id, events };
      if (!isPopulated(this.#place)) throw gone(folder);
      node.dismissKubelets();
      attempt("kubelet-attach", () => node.admitKubelet(folder));
      this.#problem = undefined;
    } catch (error) {
      this.#giveUp(
        error instanceof KubeletError
          ? error
          : new KubeletError("kubelet-cgroup", errorMessage(error), error),
      );
    }
  }

  #folder(): string {
    const { cgroup, cgroups, procFolder } = this.#options;
    return cgroup ?? findKubeletCgroup(cgroups, procFolder);
  }

  #giveUp(problem: KubeletError): void {
    this[Symbol.dispose]();
    this.#options.node.dismissKubelets();
    this.#problem = problem;
  }
}

function gone(folder: string): KubeletError {
  return new KubeletError("kubelet", `no kubelet is in its cgroup ${folder}`);
}

/** Whether it is the same cgroup as it was, with a process in it. */
function isPopulated({ folder, id }: Place): boolean {
  try {
    const events = readFileSync(join(folder, "cgroup.events"), "utf8");
    return cgroupId(folder) === id && events.includes("populated 1");
  } catch {
    return false;
  }
}

function attempt<T>(check: KubeletError["check"], action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw new KubeletError(check, errorMessage(error), error);
  }
}
