// The state that redirection by eBPF keeps in the kernel, as typed maps. cni-agent writes who is
// enrolled; ztunnel adds its listeners and its lease; the programs (bpf/) read all of it.

import { join } from "node:path";
import { type Ip, ipFamily } from "../net/ip.ts";
import { errorCode } from "../process/errors.ts";
import { CONSTANTS, Counter, MAPS, Role, SlotFlag, STRUCTS } from "./bpf-layout.gen.ts";
import { addressBytes, readAddress, u32, u64 } from "./bpf-bytes.ts";
import { EndedFlows } from "./bpf-direct-ended.ts";
import { DirectVerdicts } from "./bpf-direct.ts";
import { BpfMap, openPinned } from "./bpf-map.ts";
import { MAP_NAMES, type MapName } from "./bpf-object.ts";
import { Occupants } from "./bpf-occupants.ts";
import { possibleCpus } from "./cpus.ts";
import { closeFd } from "./libc.ts";

export type ListenerRole = keyof typeof Role;
export type CounterName = keyof typeof Counter;

const ROLES = Object.keys(Role) as ListenerRole[];
const COUNTER_NAMES = Object.keys(Counter) as CounterName[];
/** Of a value that means nothing. */
const PRESENT = Buffer.alloc(4, 1);
const NANOSECONDS_PER_MS = 1_000_000n;

/** What is captured in a pod. */
export interface SlotState {
  readonly inbound: boolean;
  readonly dns: boolean;
  /** The pod is leaving: nothing new is captured, ztunnel still serves what it has, and tunnels. */
  readonly released?: true;
}

/** The folder of a node's pins below a BPF file system, whose names may hold no dot. */
export function pinFolder(bpffs: string, node: string): string {
  return join(bpffs, "ambit", node.replaceAll("~", "~~").replaceAll(".", "~"));
}

/** The maps' folder: another layout is another folder, so that old programs keep their maps. */
export function mapFolder(pins: string): string {
  return join(pins, `maps-v${CONSTANTS.LAYOUT_VERSION}`);
}

export class Steering implements Disposable {
  /** Connections that go past ztunnel. */
  readonly direct: DirectVerdicts;
  readonly #maps: ReadonlyMap<MapName, BpfMap>;
  readonly #occupants: Occupants;

  /** Takes over the descriptors. */
  constructor(maps: ReadonlyMap<MapName, number>) {
    const open = ([name, fd]: readonly [MapName, number]) => {
      const copies = name === "counters" ? possibleCpus() : 1;
      return [name, new BpfMap(name, fd, MAPS[name], copies)] as const;
    };
    this.#maps = new Map([...maps].map(open));
    this.#occupants = new Occupants(this.#map("occupants"));
    this.direct = new DirectVerdicts({
      verdicts: this.#map("verdicts"),
      generations: this.#map("generations"),
      flows: this.#map("flows"),
      occupants: this.#occupants,
    });
  }

  /**
   * The maps that a cni-agent pinned, all or those that will be used. Throws SystemError: ENOENT when
   * there are none, EACCES or EPERM without the right to them.
   */
  static openPinned(pins: string, names: readonly MapName[] = MAP_NAMES): Steering {
    const fds = new Map<MapName, number>();
    try {
      for (const name of names) fds.set(name, openPinned(join(mapFolder(pins), name)));
    } catch (error) {
      for (const fd of fds.values()) closeFd(fd);
      throw error;
    }
    return new Steering(fds);
  }

  slotOf(netnsCookie: bigint): number | undefined {
    return this.#map("pods").get(u64(netnsCookie))?.readUInt32LE();
  }

  /** Every enrolled namespace's cookie with its slot. */
  pods(): Map<bigint, number> {
    const pods = this.#map("pods");
    const entries = pods.keys(CONSTANTS.SLOTS_MAX).flatMap((key) => {
      const slot = pods.get(key)?.readUInt32LE();
      return slot === undefined ? [] : [[key.readBigUInt64LE(), slot] as const];
    });
    return new Map(entries);
  }

  /** From now on the slot's state is that of the namespace's sockets. Throws E2BIG when the node is full. */
  enrol(netnsCookie: bigint, slot: number): void {
    this.#map("pods").set(u64(netnsCookie), u32(slot));
    this.#occupants.update(slot, (value) => {
      if (value.readBigUInt64LE(STRUCTS.occupant.netns) === netnsCookie) return;
      value.writeBigUInt64LE(netnsCookie, STRUCTS.occupant.netns);
      value.writeInt32LE(0, STRUCTS.occupant.flows);
    });
  }

  /**
   * From now on the namespace's new sockets are left alone, and nobody calls it directly. False when it
   * was not enrolled.
   */
  release(netnsCookie: bigint): boolean {
    const slot = this.slotOf(netnsCookie);
    const wasEnrolled = this.#map("pods").delete(u64(netnsCookie));
    if (slot !== undefined) {
      this.#occupants.update(slot, (value) => {
        value.writeBigUInt64LE(0n, STRUCTS.occupant.netns);
        value.writeUInt32LE(0, STRUCTS.occupant.link);
      });
      this.direct.revoke(slot);
    }
    return wasEnrolled;
  }

  /** undefined switches the slot's steering off: whoever gets it next is somebody else. */
  setSlot(slot: number, state: SlotState | undefined): void {
    if (state === undefined) this.direct.revoke(slot);
    const flags =
      state === undefined
        ? 0
        : SlotFlag.ENABLED |
          (state.inbound ? SlotFlag.INBOUND : 0) |
          (state.dns ? SlotFlag.DNS : 0) |
          (state.released === true ? SlotFlag.RELEASED : 0);
    const value = Buffer.alloc(STRUCTS.slot.bytes);
    value.writeUInt32LE(flags, STRUCTS.slot.flags);
    this.#map("slots").set(u32(slot), value);
  }

  slot(slot: number): SlotState | undefined {
    const flags = this.#map("slots").get(u32(slot))?.readUInt32LE(STRUCTS.slot.flags) ?? 0;
    if ((flags & SlotFlag.ENABLED) === 0) return undefined;
    const released = (flags & SlotFlag.RELEASED) !== 0;
    return {
      inbound: (flags & SlotFlag.INBOUND) !== 0,
      dns: (flags & SlotFlag.DNS) !== 0,
      ...(released && { released }),
    };
  }

  /** Makes a slot's own addresses exactly these. Throws E2BIG when the node has too many. */
  setAddresses(slot: number, wanted: readonly Ip[]): void {
    const map = this.#map("addresses");
    for (const ip of wanted) map.set(addressKey(slot, ip), PRESENT);
    for (const ip of this.addresses(slot)) {
      if (!wanted.includes(ip)) map.delete(addressKey(slot, ip));
    }
    this.#occupants.update(slot, (value) => writeAddresses(value, wanted));
  }

  /**
   * The slot's direct connections may take a shortcut by the interface of the node with this index; 0:
   * those that begin from now on may not.
   */
  setLink(slot: number, index: number): void {
    this.#occupants.update(slot, (value) => value.writeUInt32LE(index, STRUCTS.occupant.link));
  }

  link(slot: number): number {
    return this.#occupants.get(slot).readUInt32LE(STRUCTS.occupant.link);
  }

  addresses(slot: number): Ip[] {
    return this.addressesBySlot().get(slot) ?? [];
  }

  /** The addresses of all pods, in one look. */
  addressesBySlot(): Map<number, Ip[]> {
    const { podAddress } = STRUCTS;
    const bySlot = new Map<number, Ip[]>();
    for (const [key] of this.#map("addresses").entries(CONSTANTS.ADDRESSES_MAX)) {
      const of = bySlot.getOrInsertComputed(key.readUInt32LE(podAddress.slot), () => []);
      of.push(readAddress(key, podAddress.ip));
    }
    return bySlot;
  }

  /** Hands a listening socket to the programs; it replaces an earlier one, which keeps its queue. */
  setListener(slot: number, role: ListenerRole, socketFd: number): void {
    this.#map("listeners").set(listenerKey(slot, role), u64(BigInt(socketFd)));
  }

  /** The cookie (SO_COOKIE) of the socket that listens; undefined when nobody does. */
  listener(slot: number, role: ListenerRole): bigint | undefined {
    return this.#map("listeners").get(listenerKey(slot, role))?.readBigUInt64LE();
  }

  /** New connections of the slot find nobody until ztunnel listens again. */
  clearListeners(slot: number): void {
    for (const role of ROLES) {
      try {
        this.#map("listeners").delete(listenerKey(slot, role));
      } catch (error) {
        // What the kernel says when there is no socket at that index.
        if (errorCode(error) !== "EINVAL") throw error;
      }
    }
  }

  /** Sockets made by tasks of this cgroup are ztunnel's own. Throws E2BIG. */
  addProxy(cgroupId: bigint): void {
    this.#map("proxies").set(u64(cgroupId), PRESENT);
  }

  removeProxy(cgroupId: bigint): void {
    this.#map("proxies").delete(u64(cgroupId));
  }

  proxies(): bigint[] {
    return this.#map("proxies")
      .keys(CONSTANTS.PROXIES_MAX)
      .map((key) => key.readBigUInt64LE());
  }

  /** Kubelet may probe the slot's pod at this address. Throws E2BIG when the node has too many. */
  allowProbes(ip: Ip, slot: number): void {
    this.#map("probe_targets").set(addressBytes(ip), u32(slot));
  }

  forbidProbes(ip: Ip): void {
    this.#map("probe_targets").delete(addressBytes(ip));
  }

  /** The addresses that kubelet may probe, each with its pod's slot. */
  probeTargets(): Map<Ip, number> {
    const entries = this.#map("probe_targets").entries(CONSTANTS.ADDRESSES_MAX);
    return new Map(entries.map(([key, value]) => [readAddress(key, 0), value.readUInt32LE()]));
  }

  /** Connections are accepted for `validMs` from now on; 0 ends the need for a lease. */
  renewLease(validMs: number): void {
    const until =
      validMs === 0 ? 0n : process.hrtime.bigint() + BigInt(validMs) * NANOSECONDS_PER_MS;
    this.#map("lease").set(u32(0), u64(until));
  }

  /** Whether ztunnel once took the lease and has not renewed it in time. */
  get leaseExpired(): boolean {
    const until = this.#map("lease").get(u32(0))?.readBigUInt64LE() ?? 0n;
    return until !== 0n && until < process.hrtime.bigint();
  }

  /** Connections that ztunnel is opening to applications right now. */
  get passCount(): number {
    return this.#map("passes").keys(CONSTANTS.PASSES_MAX).length;
  }

  /** Events since the maps were made, over all CPUs. */
  counters(): Map<CounterName, number> {
    const map = this.#map("counters");
    return new Map(COUNTER_NAMES.map((name) => [name, sum(map.get(u32(Counter[name])))]));
  }

  /** Reads what is told of ended direct connections: one reader a node. Throws SystemError. */
  openEndedFlows(): EndedFlows {
    return new EndedFlows(this.#map("ended").fd);
  }

  [Symbol.dispose](): void {
    this.#occupants[Symbol.dispose]();
    for (const map of this.#maps.values()) map.close();
  }

  #map(name: MapName): BpfMap {
    return this.#maps.get(name)!;
  }
}

/** Of `struct occupant`: the first of each family, or none. */
function writeAddresses(value: Buffer, addresses: readonly Ip[]): void {
  const { occupant, address } = STRUCTS;
  for (const [family, offset] of [
    [4, occupant.ipv4],
    [6, occupant.ipv6],
  ] as const) {
    const ip = addresses.find((one) => ipFamily(one) === family);
    value.set(ip === undefined ? Buffer.alloc(address.bytes) : addressBytes(ip), offset);
  }
}

function addressKey(slot: number, ip: Ip): Buffer {
  const { podAddress } = STRUCTS;
  const key = Buffer.alloc(podAddress.bytes);
  key.writeUInt32LE(slot, podAddress.slot);
  key.set(addressBytes(ip), podAddress.ip);
  return key;
}

function listenerKey(slot: number, role: ListenerRole): Buffer {
  return u32(slot * ROLES.length + Role[role]);
}

function sum(perCpu: Buffer | undefined): number {
  let total = 0;
  for (let at = 0; at < (perCpu?.length ?? 0); at += 8)
    total += Number(perCpu!.readBigUInt64LE(at));
  return total;
}
