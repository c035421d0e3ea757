// The kernel's side of direct connections: verdicts and flows (bpf/README.md) and the sockets themselves, as
// one thing that tests can play.

import type { Clock } from "@ambit/common/process/clock.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { DirectBackend, DirectFlow, DirectSource } from "@ambit/common/sys/bpf-direct.ts";
import type { EndedFlow } from "@ambit/common/sys/bpf-direct-ended.ts";
import { Steering } from "@ambit/common/sys/bpf-steering.ts";
import {
  canDestroyConnections,
  destroyConnections,
  tcpConnections,
  type TcpSocket,
} from "@ambit/common/sys/sock-diag.ts";

export interface DirectKernel {
  slotOf(netnsCookie: bigint): number | undefined;
  addresses(slot: number): readonly Ip[];
  generation(slot: number): number;
  revoke(slot: number): void;
  /** Throws SystemError: E2BIG when there is no room. */
  allow(source: DirectSource, called: SocketAddress, backends: readonly DirectBackend[]): void;
  withdraw(netns: bigint, called: SocketAddress): void;
  withdrawAll(): void;
  flows(): DirectFlow[];
  forget(flow: DirectFlow): void;
  /** The TCP connections in a pod's namespace. */
  connections(netnsFd: number | undefined): TcpSocket[];
  end(netnsFd: number | undefined, sockets: readonly TcpSocket[]): void;
  /** What ended since the last call. One reader a node. */
  readEnded(take: (ended: EndedFlow) => void): void;
}

/** What is used here; an agent of another version may have others besides. */
const MAPS = [
  "pods",
  "occupants",
  "addresses",
  "verdicts",
  "generations",
  "flows",
  "ended",
] as const;

/**
 * The programs of the node whose pins these are. Throws an Error that says why pods cannot be let talk
 * directly here: among others, connections that could not be ended must not be begun.
 */
export function openDirectKernel(pins: string, clock: Clock): DirectKernel {
  if (!canDestroyConnections()) {
    throw new Error("the kernel cannot end connections (CONFIG_INET_DIAG_DESTROY)");
  }
  const steering = Steering.openPinned(pins, MAPS);
  const { direct } = steering;
  const addresses = remembered(clock, () => steering.addressesBySlot());
  let ended: ReturnType<Steering["openEndedFlows"]> | undefined;
  return {
    slotOf: (cookie) => steering.slotOf(cookie),
    addresses: (slot) => addresses().get(slot) ?? [],
    generation: (slot) => direct.generation(slot),
    revoke: (slot) => direct.revoke(slot),
    allow: (source, called, backends) => direct.allow(source, called, backends),
    withdraw: (netns, called) => void direct.withdraw(netns, called),
    withdrawAll: () => void direct.withdrawAll(),
    flows: () => direct.flows(),
    forget: (flow) => void direct.forget(flow),
    connections: tcpConnections,
    end: (netnsFd, sockets) => void destroyConnections(netnsFd, sockets),
    readEnded: (take) => {
      ended ??= steering.openEndedFlows();
      ended.read(take);
    },
  };
}

/** A review asks for every grant; pods hardly ever change their addresses, and are reviewed again. */
const REMEMBERED_MS = 1_000;

function remembered<T>(clock: Clock, look: () => T): () => T {
  let value: T | undefined;
  let untilMs = -Infinity;
  return () => {
    const nowMs = clock.monotonicMs();
    if (value === undefined || nowMs >= untilMs) {
      value = look();
      untilMs = nowMs + REMEMBERED_MS;
    }
    return value;
  };
}
