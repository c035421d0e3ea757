// The pods of this node as the main thread knows them: uid, who they are, and whether the workers
// serve them. Owns the namespaces' descriptors: they are closed when no worker needs them any more.

import { fstatSync } from "node:fs";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { PodUsage } from "@ambit/common/telemetry/pod-usage.ts";
import type { ConnectionSummary } from "../proxy/connection.ts";
import type { PodInfo } from "../state/mesh-state.ts";
import { NO_USAGE } from "../telemetry/pod-account.ts";
import type { Workers } from "../worker/host.ts";
import type { NodeSteering, PreparedSteering } from "./steering.ts";

/** A pod whose listeners could not be bound is tried again this often (ztunnel §2.3). */
const RETRY_MS = 5_000;

interface Entry {
  readonly uid: string;
  readonly info: PodInfo;
  readonly netnsFd: number | undefined;
  readonly netnsKey: string;
  /** In the maps by which its connections come; undefined: by address translation. */
  slot: number | undefined;
  state: "Pending" | "Up";
  retry: Timer | undefined;
}

export interface PodCounts {
  started: number;
  stopped: number;
  readonly active: number;
  readonly pending: number;
}

export interface PodRegistryOptions {
  readonly workers: Workers;
  readonly clock: Clock;
  readonly log: Logger;
  readonly steering: NodeSteering;
  /** Hears how many pods are not served yet, whenever that may have changed. */
  readonly onPending: (pending: number) => void;
}

export class PodRegistry {
  readonly #workers: Workers;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #entries = new Map<string, Entry>();
  readonly #steering: NodeSteering;
  readonly #onPending: (pending: number) => void;
  #started = 0;
  #stopped = 0;

  constructor({ workers, clock, log, steering, onPending }: PodRegistryOptions) {
    this.#workers = workers;
    this.#clock = clock;
    this.#log = log;
    this.#steering = steering;
    this.#onPending = onPending;
  }

  get counts(): PodCounts {
    const pending = this.#pendingCount();
    return {
      started: this.#started,
      stopped: this.#stopped,
      active: this.#entries.size - pending,
      pending,
    };
  }

  /**
   * Serves a pod; takes over `netnsFd`. One that is served already may change how its connections come.
   * Rejects when its listeners cannot be bound, and tries again later.
   */
  async add(
    uid: string,
    info: PodInfo,
    { netnsFd, slot }: { readonly netnsFd: number | undefined; readonly slot?: number | undefined },
  ): Promise<void> {
    const netnsKey = netnsFd === undefined ? "own" : netnsIdentity(netnsFd);
    const before = this.#entries.get(uid);
    if (before !== undefined && before.netnsKey === netnsKey && before.state === "Up") {
      if (netnsFd !== undefined) closeFd(netnsFd);
      return this.#steer(before, slot);
    }
    if (before !== undefined) await this.remove(uid);
    const entry: Entry = {
      uid,
      info,
      netnsFd,
      netnsKey,
      slot,
      state: "Pending",
      retry: undefined,
    };
    this.#entries.set(uid, entry);
    await this.#start(entry);
  }

  /** Cuts a pod's connections and forgets it. Unknown uids are fine. */
  async remove(uid: string): Promise<void> {
    const entry = this.#entries.get(uid);
    if (entry === undefined) return;
    this.#entries.delete(uid);
    entry.retry?.cancel();
    try {
      await this.#workers.askAll("removePod", { uid });
    } finally {
      if (entry.netnsFd !== undefined) closeFd(entry.netnsFd);
    }
    if (entry.state === "Up") this.#stopped++;
    this.#onPending(this.#pendingCount());
    this.#log.info("pod removed", { namespace: entry.info.namespace, pod: entry.info.name });
  }

  /** Gives up on pods that could not be served so far: one, or all when a new snapshot begins. */
  async removePending(uid?: string): Promise<void> {
    const uids = uid === undefined ? this.#entries.keys() : [uid];
    for (const each of uids) {
      if (this.#entries.get(each)?.state === "Pending") await this.remove(each);
    }
  }

  /** Removes every pod that `keep` does not list: the snapshot's end. */
  async retain(keep: ReadonlySet<string>): Promise<void> {
    const gone = [...this.#entries.keys()].filter((uid) => !keep.has(uid));
    await Promise.all(gone.map((uid) => this.remove(uid)));
  }

  /** Stops trying again: the process is on its way out. */
  close(): void {
    this.#steering.close();
    for (const { retry } of this.#entries.values()) retry?.cancel();
  }

  dump(
    connections: readonly ConnectionSummary[],
    usage: ReadonlyMap<string, PodUsage>,
  ): Record<string, unknown> {
    return Object.fromEntries(
      [...this.#entries.values()].map(({ uid, info, state }) => {
        const own = connections.filter(({ workload }) =>
          workload.endsWith(`/${info.namespace}/${info.name}`),
        );
        const of = (direction: string) =>
          own.filter((connection) => connection.direction === direction);
        const lists = { inbound: of("inbound"), outbound: of("outbound") };
        return [uid, { state, info, usage: usage.get(uid) ?? NO_USAGE, connections: lists }];
      }),
    );
  }

  async #start(entry: Entry): Promise<void> {
    const { uid, info, netnsFd } = entry;
    try {
      using prepared = this.#prepare(entry);
      const steering = prepared?.steering;
      await this.#workers.askAll("addPod", { uid, info, netnsFd, steering });
      if (this.#entries.get(uid) !== entry) return;
      entry.state = "Up";
      this.#started++;
      this.#log.info("pod added", { namespace: info.namespace, pod: info.name });
    } catch (error) {
      if (this.#entries.get(uid) === entry) this.#retryLater(entry);
      throw new Error(
        `failure to start proxy for ${info.namespace}/${info.name}: ${errorMessage(error)}`,
        { cause: error },
      );
    } finally {
      this.#onPending(this.#pendingCount());
    }
  }

  /** Also when nothing changed: the maps may have been made anew, or another ztunnel was in between. */
  async #steer(entry: Entry, slot: number | undefined): Promise<void> {
    if (entry.slot === undefined && slot === undefined) return;
    entry.slot = slot;
    using prepared = this.#prepare(entry);
    await this.#workers.askAll("steerPod", { uid: entry.uid, steering: prepared?.steering });
  }

  #prepare({ slot, netnsFd }: Entry): PreparedSteering | undefined {
    return slot === undefined ? undefined : this.#steering.prepare(slot, netnsFd);
  }

  #retryLater(entry: Entry): void {
    entry.retry = this.#clock.after(RETRY_MS, () => {
      if (this.#entries.get(entry.uid) !== entry) return;
      this.#start(entry).catch((error: unknown) =>
        this.#log.warn("pod still not served", { error: errorMessage(error) }),
      );
    });
  }

  #pendingCount(): number {
    let pending = 0;
    for (const { state } of this.#entries.values()) if (state === "Pending") pending++;
    return pending;
  }
}

/** Inode and device: the same namespace, whatever descriptor it came by. */
function netnsIdentity(fd: number): string {
  const { ino, dev } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}
