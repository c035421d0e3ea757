// The programs and maps of one node: loaded, attached at the node's cgroup, pinned, and found again by the
// next agent. Owns descriptors only; everything else is in the kernel. Pods are EbpfBackend's.

import { closeSync, existsSync, mkdirSync, openSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { AttachType } from "@ambit/common/sys/bpf-link.ts";
import { openPinned, pinObject } from "@ambit/common/sys/bpf-map.ts";
import {
  type LoadedObject,
  loadObject,
  MAP_NAMES,
  type MapName,
} from "@ambit/common/sys/bpf-object.ts";
import { mapFolder, Steering } from "@ambit/common/sys/bpf-steering.ts";
import { cgroupId, type CgroupView, isWithin, ownCgroups } from "@ambit/common/sys/cgroup.ts";
import { closeFd, SystemError } from "@ambit/common/sys/libc.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { type LinkKind, Pins } from "./ebpf-pins.ts";
import { type EbpfState, podPin, releasePod } from "./ebpf-remains.ts";
import { Shortcuts } from "./ebpf-shortcuts.ts";

/** Where each of the node's programs goes. */
const NODE_PROGRAMS = {
  connect4: AttachType.CONNECT4,
  connect6: AttachType.CONNECT6,
  sendmsg4: AttachType.SENDMSG4,
  sendmsg6: AttachType.SENDMSG6,
  recvmsg4: AttachType.RECVMSG4,
  recvmsg6: AttachType.RECVMSG6,
  getpeername4: AttachType.GETPEERNAME4,
  getpeername6: AttachType.GETPEERNAME6,
  node_sockops: AttachType.SOCK_OPS,
} as const;

type NodeProgram = keyof typeof NODE_PROGRAMS;
const NODE_PROGRAM_NAMES = Object.keys(NODE_PROGRAMS) as NodeProgram[];

export interface EbpfNodeOptions {
  /** The folder of the cgroup that holds the node's pods, and this agent. */
  readonly cgroup: string;
  /** Where processes are looked up; by default, as this process sees it. */
  readonly cgroups?: CgroupView;
  /** The node's folder in bpffs. */
  readonly pins: string;
  /** The node's own network namespace; undefined when it is this process's. */
  readonly hostNetns?: NetnsHandle | undefined;
  /** Whether packets of direct connections may go from pod to pod past the node's network; by default so. */
  readonly shortcuts?: boolean | undefined;
}

interface CgroupAttachment {
  readonly kind: LinkKind;
  readonly name: string;
  readonly program: NodeProgram | "proxy_sockops" | "kubelet_sockops";
  readonly folder: string;
}

export class EbpfNode implements EbpfState, Disposable {
  readonly pins: Pins;
  readonly steering: Steering;
  readonly shortcuts: Shortcuts;
  readonly #cgroup: string;
  readonly #cgroups: CgroupView | undefined;
  readonly #object: LoadedObject;
  /** What was put into effect, by pin. At most one for each of the node's programs and cgroups. */
  readonly #attached = new Map<string, CgroupAttachment>();
  /** Cookie of the node's own namespace: its sockets belong to no pod. */
  readonly hostCookie: bigint;

  /** Loads, and adopts what an earlier agent left; nothing is attached yet. Throws SystemError. */
  constructor(options: EbpfNodeOptions) {
    const { cgroup, cgroups = ownCgroups(), pins, hostNetns, shortcuts = true } = options;
    this.#cgroup = resolve(cgroup);
    this.#cgroups = cgroups;
    this.pins = new Pins(pins);
    this.hostCookie = cookieOfNetns(hostNetns?.fd);
    this.#object = loadWithPinnedMaps(mapFolder(pins), this.hostCookie);
    this.steering = new Steering(this.#object.maps);
    const programFd = shortcuts ? this.#object.programs.get("shortcut") : undefined;
    this.shortcuts = new Shortcuts(this, programFd, hostNetns);
  }

  /** Puts the programs into effect for the node's cgroup; no pod is enrolled by that. */
  attach(): void {
    if (this.pins.otherMaps(mapFolder(this.pins.root)).length > 0) this.#carryOver();
    for (const name of NODE_PROGRAM_NAMES) {
      this.#attachToCgroup({ kind: "links", name, program: name, folder: this.#cgroup });
    }
    this.pins.removeOtherMaps(mapFolder(this.pins.root));
    this.collectGarbage();
  }

  /** Whether nobody has removed a pin, and with it what it held in place. */
  get isIntact(): boolean {
    return this.#missing().length === 0 && this.#missingMaps().length === 0;
  }

  /** Puts back what somebody has removed from bpffs; pods' own are put back as they are installed. */
  mend(): void {
    if (this.isIntact) return;
    const folder = mapFolder(this.pins.root);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const [name, fd] of this.#missingMaps()) pinObject(fd, join(folder, name));
    for (const attachment of this.#missing()) this.#attachToCgroup(attachment);
  }

  /** `steer` for one pod. */
  attachPod(cookie: bigint, netns: NetnsHandle, slot: number): void {
    using steer = loadObject({ programs: ["steer"], maps: this.#object.maps, slot });
    this.pins.attach({
      kind: "pods",
      name: podPin(cookie),
      programFd: steer.programs.get("steer")!,
      target: netns.fd,
      targetId: netns.inode,
      type: AttachType.SK_LOOKUP,
    });
  }

  /** As `admitProxy`, for the cgroup that a process is in. */
  admitProcess(pid: number): void {
    if (this.#cgroups === undefined) throw new Error("no cgroup v2 is mounted");
    this.admitProxy(this.#cgroups.folderOf(pid));
  }

  /**
   * From now on this cgroup's sockets are ztunnel's: they are not captured, and may deliver. Throws an
   * Error that says why it cannot be: a cgroup shared with anybody else would exempt them too.
   */
  admitProxy(path: string): void {
    const folder = resolve(path);
    this.#requireOwn("ztunnel", folder);
    const id = cgroupId(folder);
    this.#attachToCgroup({ kind: "proxies", name: `${id}`, program: "proxy_sockops", folder });
    this.steering.addProxy(id);
  }

  /**
   * From now on, what this cgroup's sockets open from the node's own namespace to pods where probes are
   * allowed reaches the applications. Throws as `admitProxy` does.
   */
  admitKubelet(path: string): void {
    const folder = resolve(path);
    this.#requireOwn("kubelet", folder);
    const name = `${cgroupId(folder)}`;
    this.#attachToCgroup({ kind: "kubelets", name, program: "kubelet_sockops", folder });
  }

  /** No cgroup's sockets are kubelet's any more. */
  dismissKubelets(): void {
    for (const name of this.pins.names("kubelets")) {
      this.pins.detach("kubelets", name);
      this.#attached.delete(`kubelets/${name}`);
    }
  }

  /** Forgets pods whose namespaces and ztunnels whose cgroups are gone; returns how many. */
  collectGarbage(): number {
    const deadPods = this.pins.names("pods").filter((name) => !this.pins.target("pods", name));
    for (const name of deadPods) this.#forgetPod(name);
    this.shortcuts.collectGarbage();
    const deadProxies = this.pins
      .names("proxies")
      .filter((name) => !this.pins.target("proxies", name));
    for (const name of deadProxies) {
      this.steering.removeProxy(BigInt(name));
      this.pins.detach("proxies", name);
      this.#attached.delete(`proxies/${name}`);
    }
    return deadPods.length + deadProxies.length;
  }

  [Symbol.dispose](): void {
    this.steering[Symbol.dispose]();
    for (const fd of this.#object.programs.values()) closeFd(fd);
  }

  /**
   * The maps are new, of a layout that the former agent did not know. Who was captured stays so without a
   * gap, and who delivers may go on: until a pod is installed anew, its new connections are refused.
   */
  #carryOver(): void {
    const alive = (kind: LinkKind) =>
      this.pins.names(kind).filter((it) => this.pins.target(kind, it));
    for (const name of alive("proxies")) this.steering.addProxy(BigInt(name));
    const slots = new Set(this.steering.pods().values());
    let slot = 0;
    for (const cookie of alive("pods").map(BigInt)) {
      if (this.steering.slotOf(cookie) !== undefined) continue;
      while (slots.has(slot)) slot++;
      this.steering.setSlot(slot, { inbound: true, dns: true });
      this.steering.enrol(cookie, slot);
      slots.add(slot);
    }
  }

  #requireOwn(whose: string, folder: string): void {
    const shared = isWithin(this.#cgroup, folder) ? "the pods" : this.#holdsUs(folder);
    if (shared === undefined) return;
    throw new Error(
      `${whose} runs in ${folder}, which holds ${shared} too: give it its own cgroup`,
    );
  }

  /** Our own connections prove that pods are captured: they must not be exempt. */
  #holdsUs(folder: string): "the agent" | undefined {
    const own = this.#cgroups?.folderOf("self");
    return own !== undefined && isWithin(own, folder) ? "the agent" : undefined;
  }

  #forgetPod(name: string): void {
    const cookie = BigInt(name);
    releasePod(this, cookie, this.steering.slotOf(cookie));
  }

  #missing(): CgroupAttachment[] {
    return [...this.#attached.values()].filter(
      ({ kind, name, folder }) => !this.pins.has(kind, name) && existsSync(folder),
    );
  }

  #missingMaps(): [MapName, number][] {
    const folder = mapFolder(this.pins.root);
    return [...this.#object.maps].filter(([name]) => !existsSync(join(folder, name)));
  }

  #attachToCgroup(attachment: CgroupAttachment): void {
    const { kind, name, program, folder } = attachment;
    this.#attached.set(`${kind}/${name}`, attachment);
    const target = openSync(folder, "r");
    try {
      this.pins.attach({
        kind,
        name,
        programFd: this.#object.programs.get(program)!,
        target,
        targetId: cgroupId(folder),
        type:
          program in NODE_PROGRAMS ? NODE_PROGRAMS[program as NodeProgram] : AttachType.SOCK_OPS,
      });
    } finally {
      closeSync(target);
    }
  }
}

/** Loads the node's programs over the maps pinned in `folder`; maps that are missing are pinned there. */
function loadWithPinnedMaps(folder: string, nodeNetns: bigint): LoadedObject {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const pinned = new Map(
    MAP_NAMES.flatMap((name) => {
      const fd = openIfPinned(join(folder, name));
      return fd === undefined ? [] : [[name, fd] as const];
    }),
  );
  try {
    const others = ["proxy_sockops", "kubelet_sockops", "shortcut"] as const;
    const programs = [...NODE_PROGRAM_NAMES, ...others];
    const object = loadObject({ programs, maps: pinned, nodeNetns });
    try {
      pinMissing(object, folder, pinned);
    } catch (error) {
      object[Symbol.dispose]();
      throw error;
    }
    return object;
  } finally {
    for (const fd of pinned.values()) closeFd(fd);
  }
}

function pinMissing(
  object: LoadedObject,
  folder: string,
  pinned: ReadonlyMap<MapName, number>,
): void {
  for (const [name, fd] of object.maps) if (!pinned.has(name)) pinObject(fd, join(folder, name));
}

function openIfPinned(path: string): number | undefined {
  try {
    return openPinned(path);
  } catch (error) {
    if (error instanceof SystemError && error.code === "ENOENT") return undefined;
    const why = errorMessage(error);
    throw new Error(`${basename(path)} cannot be opened at ${path}: ${why}`, { cause: error });
  }
}
