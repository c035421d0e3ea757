// Where direct connections of the node's pods go from link to link, past the node's network
// (bpf/include/shortcut.h): between pods that talk directly, where nothing is at their links that would have to
// see their packets. What changes counts for connections that begin afterwards.

import { AttachType } from "@ambit/common/sys/bpf-link.ts";
import { SystemError } from "@ambit/common/sys/libc.ts";
import { inNetns, type NetnsHandle } from "@ambit/common/sys/netns.ts";
import { findPodLink, hasPrograms, type LinkProblem } from "@ambit/common/sys/pod-link.ts";
import { type EbpfState, podPin } from "./ebpf-remains.ts";

/** `kernel`: it is older than 6.6; `off`: nobody wants it. */
export type ShortcutProblem = LinkProblem | "kernel" | "off";

type Found = { readonly index: number } | { readonly problem: ShortcutProblem };

export class Shortcuts {
  readonly #state: EbpfState;
  readonly #programFd: number | undefined;
  readonly #hostNetns: NetnsHandle | undefined;
  /** Of the pods that were looked at, by cookie; undefined: nothing. */
  readonly #problems = new Map<bigint, ShortcutProblem | undefined>();

  /** The program stays the caller's; undefined: no pod gets any. */
  constructor(state: EbpfState, programFd: number | undefined, hostNetns: NetnsHandle | undefined) {
    this.#state = state;
    this.#programFd = programFd;
    this.#hostNetns = hostNetns;
  }

  /** Slots of pods that talk directly, and have no shortcut. */
  missing(): Set<number> {
    const { steering } = this.#state;
    const slots = steering.direct.slots();
    for (const slot of slots) if (steering.link(slot) !== 0) slots.delete(slot);
    return slots;
  }

  /**
   * For a pod that is installed, if its link allows it: direct connections take the shortcut from now on. The first
   * time takes the kernel some 15 ms, in which this thread does nothing else. Throws SystemError.
   */
  open(cookie: bigint, netns: NetnsHandle, slot: number): void {
    const { pins, steering } = this.#state;
    const found = this.#look(cookie, netns);
    // The program stays where connections have begun with it: the node's network does not know them.
    if ("problem" in found) return steering.setLink(slot, 0);
    inNetns(this.#hostNetns?.fd, () => {
      pins.attach({
        kind: "shortcuts",
        name: podPin(cookie),
        programFd: this.#programFd!,
        target: found.index,
        targetId: BigInt(found.index),
        type: AttachType.TCX_INGRESS,
      });
    });
    steering.setLink(slot, found.index);
  }

  /** For a pod that is being installed: the one that it had, with this agent's program, if it may still have it. */
  renew(cookie: bigint, netns: NetnsHandle, slot: number): void {
    if (
      this.#state.pins.has("shortcuts", podPin(cookie)) ||
      this.#state.steering.link(slot) !== 0
    ) {
      this.open(cookie, netns, slot);
    }
  }

  /** Whether the pod's shortcut, if it has one, is in place, and nothing is in its way. */
  isFit(cookie: bigint, netns: NetnsHandle, slot: number): boolean {
    const index = this.#state.steering.link(slot);
    if (index === 0) return true;
    const found = this.#look(cookie, netns);
    return "index" in found && found.index === index && this.#linkOf(cookie) === index;
  }

  /** How many pods that talk directly have a shortcut (""), and how many have none, by reason. */
  counts(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const problem of this.#problems.values()) {
      counts.set(problem ?? "", (counts.get(problem ?? "") ?? 0) + 1);
    }
    return counts;
  }

  /** Ends those of pods that have left, with the last connection that began so. */
  collectGarbage(): void {
    const { pins, steering } = this.#state;
    for (const cookie of this.#problems.keys()) {
      if (!pins.has("pods", podPin(cookie))) this.#problems.delete(cookie);
    }
    const left = pins.names("shortcuts").filter((name) => !pins.has("pods", name));
    if (left.length === 0) return;
    const used = new Set(steering.direct.flows().flatMap((flow) => [flow.sourceLink, flow.link]));
    for (const name of left) {
      const link = this.#linkOf(BigInt(name));
      if (!link || !used.has(link)) pins.detach("shortcuts", name);
    }
  }

  #look(cookie: bigint, netns: NetnsHandle): Found {
    const found = this.#find(cookie, netns);
    this.#problems.set(cookie, "problem" in found ? found.problem : undefined);
    return found;
  }

  #find(cookie: bigint, netns: NetnsHandle): Found {
    if (this.#programFd === undefined) return { problem: "off" };
    const found = findPodLink(netns, this.#hostNetns);
    if ("problem" in found) return found;
    try {
      const own = this.#linkOf(cookie) === found.index ? 1 : 0;
      return hasPrograms(found.index, this.#hostNetns, own) ? { problem: "programs" } : found;
    } catch (error) {
      if (error instanceof SystemError && error.code === "EINVAL") return { problem: "kernel" };
      throw error;
    }
  }

  /** The interface that a pod's program is at: 0 when that is gone, undefined without a program. */
  #linkOf(cookie: bigint): number | undefined {
    const target = this.#state.pins.target("shortcuts", podPin(cookie));
    return target === undefined ? undefined : Number(target);
  }
}
