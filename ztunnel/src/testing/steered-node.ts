// Redirection by eBPF for the pods of tests and benches, as the node agent does it (bpf/README.md): programs
// at a cgroup, maps pinned in a BPF file system of their own, routes in the pods.

import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Ip } from "@ambit/common/net/ip.ts";
import { AttachType, createLink } from "@ambit/common/sys/bpf-link.ts";
import { pinObject } from "@ambit/common/sys/bpf-map.ts";
import { type LoadedObject, loadObject } from "@ambit/common/sys/bpf-object.ts";
import { mapFolder, pinFolder, Steering } from "@ambit/common/sys/bpf-steering.ts";
import { ensureBpffs } from "@ambit/common/sys/bpffs.ts";
import { cgroupId } from "@ambit/common/sys/cgroup.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { inNetns, type NetnsHandle, openNetns } from "@ambit/common/sys/netns.ts";
import { findPodLink } from "@ambit/common/sys/pod-link.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { setNetSysctl } from "@ambit/common/sys/sysctl.ts";
import type { NodeCgroup } from "./node-cgroup.ts";

const NODE_PROGRAMS = {
  connect4: AttachType.CONNECT4,
  connect6: AttachType.CONNECT6,
  getpeername4: AttachType.GETPEERNAME4,
  getpeername6: AttachType.GETPEERNAME6,
  node_sockops: AttachType.SOCK_OPS,
} as const;
const PROGRAM_NAMES = Object.keys(NODE_PROGRAMS) as (keyof typeof NODE_PROGRAMS)[];

export interface SteeredPod {
  /** The name of its network namespace. */
  readonly netns: string;
  readonly ip: Ip;
}

/** A pod's slot is its place among the pods. */
export class SteeredNode {
  readonly bpffs = mkdtempSync(join(tmpdir(), "ambit-steered-"));
  readonly steering: Steering;
  readonly #pods: readonly SteeredPod[];
  readonly #object: LoadedObject;
  readonly #links: number[] = [];

  /**
   * Everything is there, and no pod is captured. `node` is ztunnel's name for the node; `netns` that of its
   * namespace, when the pods' links end there.
   */
  constructor(node: string, cgroup: NodeCgroup, pods: readonly SteeredPod[], netns?: string) {
    this.#pods = pods;
    ensureBpffs(this.bpffs);
    this.#object = loadObject({ programs: [...PROGRAM_NAMES, "proxy_sockops", "shortcut"] });
    const maps = mapFolder(pinFolder(this.bpffs, node));
    mkdirSync(maps, { recursive: true });
    for (const [name, fd] of this.#object.maps) pinObject(fd, join(maps, name));
    this.steering = new Steering(this.#object.maps);
    for (const name of PROGRAM_NAMES) this.#attach(name, cgroup.folder, NODE_PROGRAMS[name]);
    this.#attach("proxy_sockops", cgroup.ztunnel, AttachType.SOCK_OPS);
    this.steering.addProxy(cgroupId(cgroup.ztunnel));
    for (const [slot, pod] of pods.entries()) this.#preparePod(slot, pod);
    if (netns !== undefined) this.#linkPods(netns);
  }

  /** Has the sockets of the pods captured that are made from now on. */
  capture(): void {
    for (const [slot, pod] of this.#pods.entries()) {
      inPod(pod, ({ fd }) => this.steering.enrol(cookieOfNetns(fd), slot));
    }
  }

  /** Takes everything away. */
  remove(): void {
    for (const pod of this.#pods) {
      ip(pod, `rule del fwmark 0x111/0xfff lookup 100`);
      ip(pod, `route flush table 100`);
      inPod(pod, ({ fd }) => setNetSysctl(fd, "ipv4/tcp_fwmark_accept", "0"));
    }
    for (const link of this.#links) closeFd(link);
    for (const fd of this.#object.programs.values()) closeFd(fd);
    this.steering[Symbol.dispose]();
    execFileSync("umount", ["-l", this.bpffs]);
    rmdirSync(this.bpffs);
  }

  #preparePod(slot: number, pod: SteeredPod): void {
    ip(pod, "rule add priority 32764 fwmark 0x111/0xfff lookup 100");
    ip(pod, `route add local default dev lo src ${pod.ip} table 100`);
    this.steering.setAddresses(slot, [pod.ip]);
    this.steering.setSlot(slot, { inbound: true, dns: false });
    using steer = loadObject({ programs: ["steer"], maps: this.#object.maps, slot });
    inPod(pod, ({ fd }) => {
      setNetSysctl(fd, "ipv4/tcp_fwmark_accept", "1");
      this.#links.push(createLink(steer.programs.get("steer")!, fd, AttachType.SK_LOOKUP));
    });
  }

  #linkPods(netns: string): void {
    using node = openNetns(`/run/netns/${netns}`);
    for (const [slot, pod] of this.#pods.entries()) {
      inPod(pod, (handle) => this.#openShortcut(slot, handle, node));
    }
  }

  #openShortcut(slot: number, pod: NetnsHandle, node: NetnsHandle): void {
    const found = findPodLink(pod, node);
    if ("problem" in found) throw new Error(`no shortcut for a pod: ${found.problem}`);
    const { index } = found;
    const program = this.#object.programs.get("shortcut")!;
    const link = inNetns(node.fd, () => createLink(program, index, AttachType.TCX_INGRESS));
    this.#links.push(link);
    this.steering.setLink(slot, index);
  }

  #attach(
    name: Parameters<LoadedObject["programs"]["get"]>[0],
    folder: string,
    type: Parameters<typeof createLink>[2],
  ): void {
    const fd = openSync(folder, "r");
    this.#links.push(createLink(this.#object.programs.get(name)!, fd, type));
    closeSync(fd);
  }
}

function inPod({ netns }: SteeredPod, action: (netns: NetnsHandle) => void): void {
  using handle = openNetns(`/run/netns/${netns}`);
  action(handle);
}

function ip({ netns }: SteeredPod, command: string): void {
  execFileSync("ip", ["-n", netns, ...command.split(" ")]);
}
