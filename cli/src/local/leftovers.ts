// What a killed run leaves behind, found by the names this mesh uses, and its removal. Network
// namespaces are the root of everything: processes live in them, links have both ends in them.

import { readdirSync, readlinkSync, statSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { errorCode } from "@ambit/common/process/errors.ts";
import { runCommand } from "./command.ts";
import { netnsPath } from "./home.ts";

export interface Leftovers {
  readonly netns: readonly string[];
  readonly pids: readonly number[];
}

const NETNS_FOLDER = "/run/netns";
/** A killed process is gone within a few scheduler ticks; one in an uninterruptible call may not be. */
const KILL_TIMEOUT_MS = 5_000;
const KILL_POLL_MS = 10;

/** Namespaces this mesh makes or that `recorded` names, and the processes that live in them. */
export function findLeftovers(prefix: string, recorded: readonly string[] = []): Leftovers {
  const netns = namespaces().filter((name) => isOurs(prefix, name) || recorded.includes(name));
  return { netns, pids: processesIn(netns) };
}

/** The prefix alone is not enough: others may name their namespaces after the same product. */
export function isOurs(prefix: string, name: string): boolean {
  return name.startsWith(prefix) && /^(fabric$|node-\d+$|pod-)/.test(name.slice(prefix.length));
}

function namespaces(): string[] {
  try {
    return readdirSync(NETNS_FOLDER).sort();
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  }
}

/** Processes whose main thread is in one of the named namespaces. */
export function processesIn(netns: readonly string[]): number[] {
  const inodes = new Set(netns.flatMap((name) => inodeOf(name) ?? []));
  if (inodes.size === 0) return [];
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => pid !== process.pid && inodes.has(netnsLink(pid)));
}

function inodeOf(name: string): string | undefined {
  try {
    return `net:[${statSync(netnsPath(name)).ino}]`;
  } catch {
    return undefined;
  }
}

function netnsLink(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return "";
  }
}

/** Kills what runs in the namespaces, waits until it is gone, and deletes them. */
export async function removeLeftovers(found: Leftovers): Promise<void> {
  await killAll(found.netns);
  for (const name of found.netns) {
    await runCommand("ip", ["netns", "del", name]).catch((error: unknown) => {
      if (namespaces().includes(name)) throw error;
    });
  }
}

/** SIGKILL until nothing is left: a process may start another one while it dies. */
export async function killAll(netns: readonly string[]): Promise<void> {
  const deadlineMs = performance.now() + KILL_TIMEOUT_MS;
  for (;;) {
    const pids = processesIn(netns);
    if (pids.length === 0) return;
    if (performance.now() > deadlineMs) {
      throw new Error(`processes ${pids.join(", ")} do not end although killed`);
    }
    for (const pid of pids) sendSignal(pid, "SIGKILL");
    await delay(KILL_POLL_MS);
  }
}

/** Signals a process that may be gone already. */
export function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (errorCode(error) !== "ESRCH") throw error;
  }
}
