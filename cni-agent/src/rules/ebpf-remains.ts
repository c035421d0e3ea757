// What eBPF redirection has left on a node where it is not used any more: pods that an earlier agent
// enrolled, to be taken out one by one as another way captures them, then everything.

import { existsSync } from "node:fs";
import { mapFolder, Steering } from "@ambit/common/sys/bpf-steering.ts";
import { Pins } from "./ebpf-pins.ts";

/** The part of a node's eBPF state that needs nothing loaded. */
export interface EbpfState {
  readonly pins: Pins;
  readonly steering: Steering;
}

/** Undefined when there is nothing. Throws SystemError when there is something that cannot be opened. */
export function openRemains(pins: string): EbpfState | undefined {
  if (!existsSync(mapFolder(pins))) return undefined;
  return { pins: new Pins(pins), steering: Steering.openPinned(pins) };
}

/** A pod's pin is its namespace's cookie. */
export function podPin(cookie: bigint): string {
  return `${cookie}`;
}

/** Ends a pod's capture and frees its slot for the next; connections that were captured go on. */
export function releasePod(state: EbpfState, cookie: bigint, slot: number | undefined): void {
  const { steering, pins } = state;
  if (slot !== undefined) steering.setSlot(slot, undefined);
  steering.release(cookie);
  pins.detach("pods", podPin(cookie));
  if (slot === undefined) return;
  steering.clearListeners(slot);
  steering.setAddresses(slot, []);
}
