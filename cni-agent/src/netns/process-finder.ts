// Kubernetes: a pod's namespace through its processes. /proc is scanned for processes whose cgroup
// names the pod's uid; of several namespaces the one of the oldest process counts, and it must own one
// of the pod's addresses, so that a process passing through is never mistaken for the pod.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type NetnsHandle, openNetns } from "@ambit/common/sys/netns.ts";
import type { PodView } from "../mesh/pod-view.ts";
import { type NetnsFinder, ownsAddress } from "./finder.ts";

/** "…/kubepods-besteffort-pod1234_….slice/…" or "…/kubepods/besteffort/pod1234-…/…". */
const POD_UID =
  /pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})/;

/** In /proc/PID/stat after the command's closing bracket: field 22, starttime, is the 20th. */
const START_TIME_INDEX = 19;

interface Candidate {
  readonly pid: string;
  readonly startTicks: number;
}

export class ProcessFinder implements NetnsFinder {
  readonly #proc: string;

  /** `proc` is where the node's /proc is: /proc, or /host/proc in a container. */
  constructor(proc: string) {
    this.#proc = proc;
  }

  find(pod: PodView): NetnsHandle | undefined {
    if (pod.ips.length === 0) return undefined;
    const init = this.#namespaceKey("1");
    for (const { pid } of this.#processesOf(pod.uid)) {
      const netns = this.#open(pid);
      if (netns === undefined) continue;
      if (keyOf(netns) !== init && ownsAddress(netns, pod.ips)) return netns;
      netns.close();
    }
    return undefined;
  }

  /** Oldest first. */
  #processesOf(uid: string): Candidate[] {
    const pids = readdirSync(this.#proc).filter((name) => /^\d+$/.test(name));
    return pids
      .filter((pid) => podUidOfCgroup(this.#read(pid, "cgroup")) === uid)
      .map((pid) => ({ pid, startTicks: startTicksOfStat(this.#read(pid, "stat")) }))
      .sort((a, b) => a.startTicks - b.startTicks);
  }

  #namespaceKey(pid: string): string | undefined {
    using netns = this.#open(pid);
    return netns && keyOf(netns);
  }

  #open(pid: string): NetnsHandle | undefined {
    try {
      return openNetns(join(this.#proc, pid, "ns/net"));
    } catch {
      return undefined;
    }
  }

  /** Empty for a process that has just ended. */
  #read(pid: string, file: string): string {
    try {
      return readFileSync(join(this.#proc, pid, file), "utf8");
    } catch {
      return "";
    }
  }
}

function keyOf({ device, inode }: NetnsHandle): string {
  return `${device}:${inode}`;
}

/** The pod uid that a /proc/PID/cgroup file names; undefined for processes outside pods. */
export function podUidOfCgroup(text: string): string | undefined {
  return POD_UID.exec(text)?.[1]?.replaceAll("_", "-");
}

/** Start time in clock ticks since boot; Infinity when unreadable. The command may hold anything. */
export function startTicksOfStat(text: string): number {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(fields[START_TIME_INDEX]);
  return fields.length > START_TIME_INDEX && Number.isFinite(ticks) ? ticks : Infinity;
}
