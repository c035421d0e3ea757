// Whether this node can redirect by eBPF: checks in the order in which they make sense, the first that
// fails being the reason. What passes is attached, with no pod enrolled by that.

import { existsSync, rmSync } from "node:fs";
import { release } from "node:os";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { ensureBpffs } from "@ambit/common/sys/bpffs.ts";
import { pinFolder } from "@ambit/common/sys/bpf-steering.ts";
import { type CgroupView, isWithin, nodeCgroups, ownCgroups } from "@ambit/common/sys/cgroup.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { resolve } from "node:path";
import { EbpfBackend, type ProbeHost } from "./ebpf-backend.ts";
import { proveSteering } from "./ebpf-canary.ts";
import { EbpfNode } from "./ebpf-node.ts";
import { KubeletSockets } from "./kubelet-sockets.ts";

export type GateCheck = "kernel" | "cgroup" | "bpffs" | "programs" | "attach" | "canary";

/** Why a node cannot redirect by eBPF: which check failed, and what it found. */
export class GateError extends Error {
  override readonly name = "GateError";
  readonly check: GateCheck;

  constructor(check: GateCheck, message: string, cause?: unknown) {
    super(message, { cause });
    this.check = check;
  }
}

export interface GateOptions {
  readonly nodeName: string;
  readonly bpfFs: string;
  /** The cgroup of everything on the node; found by way of the first process when not given. */
  readonly cgroup: string | undefined;
  readonly procFolder: string;
  readonly hostNetns: NetnsHandle | undefined;
  /** The cgroup of the node's kubelet; found by its process when not given. */
  readonly kubeletCgroup: string | undefined;
  /** Whether packets of direct connections may go past the node's network; by default so. */
  readonly shortcuts?: boolean | undefined;
  readonly probes: ProbeHost;
  /** As uname says it. */
  readonly kernelRelease?: string;
}

export interface OpenedEbpf {
  readonly node: EbpfNode;
  readonly backend: EbpfBackend;
  readonly kubelet: KubeletSockets;
}

/** netns cookies in sockops programs came with it; earlier kernels could not tell pods apart there. */
const KERNEL_MIN = [5, 15] as const;

/** Rejects with GateError; then nothing new is left behind. */
export async function openEbpf(options: GateOptions): Promise<OpenedEbpf> {
  requireKernel(options.kernelRelease ?? release());
  const { cgroup, cgroups } = requireCgroup(options);
  const { bpfFs, nodeName, probes, hostNetns, shortcuts } = options;
  during("bpffs", `cannot mount a BPF file system at ${bpfFs}`, () => ensureBpffs(bpfFs));
  const pins = pinFolder(bpfFs, nodeName);
  const isNew = !existsSync(pins);
  const node = during("programs", "the kernel does not take the programs", () => {
    try {
      return new EbpfNode({ cgroup, cgroups, pins, hostNetns, shortcuts });
    } catch (error) {
      if (isNew) rmSync(pins, { recursive: true, force: true });
      throw error;
    }
  });
  try {
    during("attach", `cannot attach to ${cgroup}`, () => node.attach());
    const { kubeletCgroup, procFolder } = options;
    using stack = new DisposableStack();
    const kubelet = stack.use(
      new KubeletSockets({ node, cgroup: kubeletCgroup, cgroups, procFolder }),
    );
    const backend = new EbpfBackend(node, probes, kubelet);
    await proveSteering(node, backend).catch((error: unknown) => {
      throw new GateError("canary", errorMessage(error), error);
    });
    stack.move();
    return { node, backend, kubelet };
  } catch (error) {
    if (node.steering.pods().size === 0) node.pins.removeAll();
    node[Symbol.dispose]();
    throw error;
  }
}

function requireKernel(text: string): void {
  const [, major = "0", minor = "0"] = /^(\d+)\.(\d+)/.exec(text) ?? [];
  const [wantedMajor, wantedMinor] = KERNEL_MIN;
  const newer = Number(major) > wantedMajor;
  if (newer || (Number(major) === wantedMajor && Number(minor) >= wantedMinor)) return;
  throw new GateError("kernel", `Linux ${text} is older than ${KERNEL_MIN.join(".")}`);
}

/** The agent must be in the cgroup itself: what it proves of pods, it proves by its own connections. */
function requireCgroup(options: GateOptions): { cgroup: string; cgroups: CgroupView } {
  const cgroups = options.cgroup === undefined ? nodeCgroups(options.procFolder) : ownCgroups();
  if (cgroups === undefined) {
    const what =
      options.cgroup === undefined ? "the node's cgroup is not found" : "it is not mounted";
    throw new GateError("cgroup", `cgroup v2: ${what}`);
  }
  const cgroup = resolve(options.cgroup ?? cgroups.root);
  if (options.cgroup === undefined) return { cgroup, cgroups };
  const own = cgroups.folderOf("self");
  if (isWithin(own, cgroup)) return { cgroup, cgroups };
  throw new GateError("cgroup", `the agent runs in ${own}, outside of the node's ${cgroup}`);
}

function during<T>(check: GateCheck, what: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw new GateError(check, `${what}: ${errorMessage(error)}`, error);
  }
}
