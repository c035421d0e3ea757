// What user space says to the programs about direct connections (bpf/include/direct.h), and what they tell
// it: verdicts with their generations, and the flows that exist. Decides nothing.

import { ipFamily } from "../net/ip.ts";
import type { SocketAddress } from "../net/socket-address.ts";
import { assert } from "../process/assert.ts";
import { readAddress, readEndpoint, u32, writeEndpoint } from "./bpf-bytes.ts";
import { CONSTANTS, FlowFlag, STRUCTS } from "./bpf-layout.gen.ts";
import type { BpfMap } from "./bpf-map.ts";
import type { Occupants } from "./bpf-occupants.ts";

export const { BACKENDS_MAX, FLOWS_MAX, FLOWS_OF_POD_MAX } = CONSTANTS;

/** Where a call may go, and how often compared with the verdict's others. */
export interface DirectBackend {
  readonly to: SocketAddress;
  /** The pod's; with the slot's generation from before the decision. */
  readonly slot: number;
  readonly generation: number;
  readonly weight: number;
}

/** A pod that calls. */
export interface DirectSource {
  /** Cookie of its network namespace. */
  readonly netns: bigint;
  readonly slot: number;
}

/** A connection between two applications of the node. */
export interface DirectFlow {
  /** Its socket's at the client: one connection's for as long as the kernel runs. */
  readonly cookie: bigint;
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  /** What the client called, when that was a service. */
  readonly service: SocketAddress | undefined;
  /** Cookie of the client's network namespace. */
  readonly netns: bigint;
  /** The client's slot. */
  readonly sourceSlot: number;
  /** The destination's slot. */
  readonly slot: number;
  readonly generation: number;
  /** As process.hrtime.bigint() counts. */
  readonly startedNs: bigint;
  /** False: only the SYN has been sent so far. */
  readonly accepted: boolean;
  /** The destination has no socket any more, and has told of the end; the client still has one. */
  readonly closed: boolean;
  /** Indexes of the interfaces between which its packets take a shortcut; 0: they take none. */
  readonly sourceLink: number;
  readonly link: number;
}

export interface DirectMaps {
  readonly verdicts: BpfMap;
  readonly generations: BpfMap;
  readonly flows: BpfMap;
  readonly occupants: Occupants;
}

export class DirectVerdicts {
  readonly #maps: DirectMaps;

  /** The maps stay the caller's. */
  constructor(maps: DirectMaps) {
    this.#maps = maps;
  }

  /** Read it before deciding: a verdict made with an older one is void. */
  generation(slot: number): number {
    return this.#maps.generations.get(u32(slot))!.readUInt32LE();
  }

  /** From now on nothing that was allowed towards this slot is; connections that exist go on. */
  revoke(slot: number): void {
    this.#maps.generations.set(u32(slot), u32((this.generation(slot) + 1) >>> 0));
  }

  /**
   * The pod may call `called` directly: it gets one of the backends, of its address family. Throws
   * SystemError: E2BIG when there is no room.
   */
  allow(source: DirectSource, called: SocketAddress, backends: readonly DirectBackend[]): void {
    assert(backends.length <= BACKENDS_MAX, "a verdict has a bounded number of backends");
    const value = encodeVerdict(source.slot, called, backends);
    this.#maps.verdicts.set(verdictKey(source.netns, called), value);
  }

  /** False when there was no verdict. */
  withdraw(netns: bigint, called: SocketAddress): boolean {
    return this.#maps.verdicts.delete(verdictKey(netns, called));
  }

  /** Withdraws all, for instance what an earlier process decided; returns how many. */
  withdrawAll(): number {
    const keys = this.#maps.verdicts.keys(CONSTANTS.VERDICTS_MAX);
    return keys.filter((key) => this.#maps.verdicts.delete(key)).length;
  }

  /** Slots of the pods that may call others directly, and of those that may be called so. */
  slots(): Set<number> {
    const { verdict, backend } = STRUCTS;
    const slots = new Set<number>();
    for (const [, value] of this.#maps.verdicts.entries(CONSTANTS.VERDICTS_MAX)) {
      slots.add(value.readUInt32LE(verdict.source));
      for (let index = 0; index < BACKENDS_MAX; index++) {
        const at = verdict.backends + index * backend.bytes;
        if (value.readUInt32LE(at + backend.until) > 0) {
          slots.add(value.readUInt32LE(at + backend.slot));
        }
      }
    }
    return slots;
  }

  get verdictCount(): number {
    return this.#maps.verdicts.keys(CONSTANTS.VERDICTS_MAX).length;
  }

  flows(): DirectFlow[] {
    return this.#maps.flows.entries(FLOWS_MAX).map(([key, value]) => decodeFlow(key, value));
  }

  /** Forgets a flow whose sockets are gone. False when it was not there any more. Throws SystemError. */
  forget(flow: DirectFlow): boolean {
    if (!this.#maps.flows.delete(flowKey(flow))) return false;
    this.#maps.occupants.giveFlowBack(flow.sourceSlot, flow.netns);
    return true;
  }

  /** Direct connections that the pod with this slot has, as the programs count them. */
  flowCount(slot: number): number {
    return this.#maps.occupants.get(slot).readInt32LE(STRUCTS.occupant.flows);
  }
}

function verdictKey(netns: bigint, called: SocketAddress): Buffer {
  const { verdictKey: layout } = STRUCTS;
  const key = Buffer.alloc(layout.bytes);
  key.writeBigUInt64LE(netns, layout.netns);
  writeEndpoint(key, layout.to, called);
  return key;
}

function encodeVerdict(
  source: number,
  called: SocketAddress,
  backends: readonly DirectBackend[],
): Buffer {
  const { verdict, backend: layout } = STRUCTS;
  const value = Buffer.alloc(verdict.bytes);
  value.writeUInt32LE(source, verdict.source);
  let until = 0;
  for (const [index, { to, slot, generation, weight }] of backends.entries()) {
    assert(ipFamily(to.ip) === ipFamily(called.ip), "a socket keeps its address family");
    const at = verdict.backends + index * layout.bytes;
    until += weight;
    writeEndpoint(value, at + layout.to, to);
    value.writeUInt32LE(slot, at + layout.slot);
    value.writeUInt32LE(generation, at + layout.generation);
    value.writeUInt32LE(until, at + layout.until);
  }
  value.writeUInt32LE(until, verdict.draws);
  return value;
}

function flowKey({ source, destination }: DirectFlow): Buffer {
  const { flowKey: layout, endpoint } = STRUCTS;
  const key = Buffer.alloc(layout.bytes);
  const scratch = Buffer.alloc(endpoint.bytes);
  for (const [address, ip, port] of [
    [source, layout.source, layout.sourcePort],
    [destination, layout.destination, layout.destinationPort],
  ] as const) {
    writeEndpoint(scratch, 0, address);
    key.set(scratch.subarray(endpoint.ip, endpoint.port), ip);
    key.writeUInt16BE(address.port, port);
  }
  return key;
}

/** `struct flow` with its key, as they are in the map and in a record of what ended. */
export function decodeFlow(key: Buffer, value: Buffer): DirectFlow {
  const { flow, flowKey: layout } = STRUCTS;
  const flags = value.readUInt32LE(flow.flags);
  return {
    cookie: value.readBigUInt64LE(flow.cookie),
    source: {
      ip: readAddress(key, layout.source),
      port: key.readUInt16BE(layout.sourcePort),
    },
    destination: {
      ip: readAddress(key, layout.destination),
      port: key.readUInt16BE(layout.destinationPort),
    },
    service: readEndpoint(value, flow.service),
    netns: value.readBigUInt64LE(flow.netns),
    sourceSlot: value.readUInt16LE(flow.source),
    slot: value.readUInt16LE(flow.slot),
    generation: value.readUInt32LE(flow.generation),
    startedNs: value.readBigUInt64LE(flow.startedNs),
    accepted: (flags & FlowFlag.USED) !== 0,
    closed: (flags & FlowFlag.CLOSED) !== 0,
    sourceLink: value.readUInt32LE(flow.sourceLink),
    link: value.readUInt32LE(flow.link),
  };
}
