// Redirection by eBPF for the bench's two pods, as the node agent does it (bpf/README.md): programs at a
// cgroup of the bench's own, maps pinned in a BPF file system of its own, routes in the pods.

import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseIp } from "@ambit/common/net/ip.ts";
import { AttachType, createLink } from "@ambit/common/sys/bpf-link.ts";
import { pinObject } from "@ambit/common/sys/bpf-map.ts";
import { type LoadedObject, loadObject } from "@ambit/common/sys/bpf-object.ts";
import { mapFolder, pinFolder, Steering } from "@ambit/common/sys/bpf-steering.ts";
import { ensureBpffs } from "@ambit/common/sys/bpffs.ts";
import { cgroupId, cgroupOfProcess, findCgroup2 } from "@ambit/common/sys/cgroup.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { openNetns } from "@ambit/common/sys/netns.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { setNetSysctl } from "@ambit/common/sys/sysctl.ts";
import { CLIENT_IP, SERVER_IP, type Topology } from "./topology.ts";

const NODE_PROGRAMS = {
  connect4: AttachType.CONNECT4,
  connect6: AttachType.CONNECT6,
  getpeername4: AttachType.GETPEERNAME4,
  getpeername6: AttachType.GETPEERNAME6,
  node_sockops: AttachType.SOCK_OPS,
} as const;
const PROGRAM_NAMES = Object.keys(NODE_PROGRAMS) as (keyof typeof NODE_PROGRAMS)[];

export const SLOTS = { client: 0, server: 1 } as const;
const IPS = { client: CLIENT_IP, server: SERVER_IP } as const;

export class BenchSteering {
  readonly bpffs = mkdtempSync(join(tmpdir(), "ambit-bench-bpffs-"));
  readonly #topology: Topology;
  readonly #home: string;
  readonly #cgroup: string;
  readonly #object: LoadedObject;
  readonly #steering: Steering;
  readonly #links: number[] = [];

  /** Everything is there, and no pod is captured. `node` is ztunnel's name for the node. */
  constructor(topology: Topology, node: string) {
    const mount = findCgroup2();
    if (mount === undefined) throw new Error("the bench of eBPF needs cgroup v2");
    this.#topology = topology;
    this.#home = cgroupOfProcess(mount, "self");
    this.#cgroup = join(mount, `ambit-bench-${process.pid}`);
    for (const folder of [this.#cgroup, this.#apps, this.#ztunnel]) mkdirSync(folder);
    ensureBpffs(this.bpffs);
    this.#object = loadObject({ programs: [...PROGRAM_NAMES, "proxy_sockops"] });
    const maps = mapFolder(pinFolder(this.bpffs, node));
    mkdirSync(maps, { recursive: true });
    for (const [name, fd] of this.#object.maps) pinObject(fd, join(maps, name));
    this.#steering = new Steering(this.#object.maps);
    for (const name of PROGRAM_NAMES) this.#attach(name, this.#cgroup, NODE_PROGRAMS[name]);
    this.#attach("proxy_sockops", this.#ztunnel, AttachType.SOCK_OPS);
    this.#steering.addProxy(cgroupId(this.#ztunnel));
    for (const side of ["client", "server"] as const) this.#preparePod(side);
  }

  /** This process's new children are ztunnel's, until `leave`. */
  startProxy<T>(start: () => T): T {
    this.#moveTo(this.#ztunnel);
    try {
      return start();
    } finally {
      this.#moveTo(this.#home);
    }
  }

  /** Has the pods' sockets captured: those of this process's children and of the servers `pids`. */
  capture(pids: readonly number[]): void {
    for (const pid of pids) writeFileSync(join(this.#apps, "cgroup.procs"), `${pid}`);
    this.#moveTo(this.#apps);
    for (const side of ["client", "server"] as const) {
      this.#inPod(side, (fd) => this.#steering.enrol(cookieOfNetns(fd), SLOTS[side]));
    }
  }

  remove(pids: readonly number[]): void {
    this.#moveTo(this.#home);
    for (const pid of pids) writeFileSync(join(this.#home, "cgroup.procs"), `${pid}`);
    for (const side of ["client", "server"] as const) {
      this.#ip(side, `rule del fwmark 0x111/0xfff lookup 100`);
      this.#ip(side, `route flush table 100`);
      this.#inPod(side, (fd) => setNetSysctl(fd, "ipv4/tcp_fwmark_accept", "0"));
    }
    for (const link of this.#links) closeFd(link);
    for (const fd of this.#object.programs.values()) closeFd(fd);
    this.#steering[Symbol.dispose]();
    execFileSync("umount", ["-l", this.bpffs]);
    rmdirSync(this.bpffs);
    for (const folder of [this.#apps, this.#ztunnel, this.#cgroup]) rmdirSync(folder);
  }

  get #apps(): string {
    return join(this.#cgroup, "apps");
  }

  get #ztunnel(): string {
    return join(this.#cgroup, "ztunnel");
  }

  #preparePod(side: "client" | "server"): void {
    const slot = SLOTS[side];
    this.#ip(side, "rule add priority 32764 fwmark 0x111/0xfff lookup 100");
    this.#ip(side, `route add local default dev lo src ${IPS[side]} table 100`);
    this.#steering.setAddresses(slot, [parseIp(IPS[side])!]);
    this.#steering.setSlot(slot, { inbound: true, dns: false });
    using steer = loadObject({ programs: ["steer"], maps: this.#object.maps, slot });
    this.#inPod(side, (fd) => {
      setNetSysctl(fd, "ipv4/tcp_fwmark_accept", "1");
      this.#links.push(createLink(steer.programs.get("steer")!, fd, AttachType.SK_LOOKUP));
    });
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

  #inPod(side: "client" | "server", action: (netnsFd: number) => void): void {
    using netns = openNetns(`/run/netns/${this.#topology.netns(side)}`);
    action(netns.fd);
  }

  #ip(side: "client" | "server", command: string): void {
    execFileSync("ip", ["-n", this.#topology.netns(side), ...command.split(" ")]);
  }

  #moveTo(folder: string): void {
    writeFileSync(join(folder, "cgroup.procs"), `${process.pid}`);
  }
}
