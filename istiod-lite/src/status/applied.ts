// How far the proxies are with each rule: told once all of them have acknowledged it, when one refuses it,
// and when it takes long. A rule that is in force everywhere is looked at again only when it changes.

import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { keyText, type ResourceKey } from "@ambit/common/resources/source.ts";
import type { Acknowledgement } from "@ambit/common/xds/delta-server.ts";
import { APPLIED, type Condition, type Enforcement, type ObjectStatus } from "./object-status.ts";

/** Acknowledgements that come together are looked at together. */
const LOOK_AFTER_MS = 50;
/** Before it, that proxies have not acknowledged a change is not worth a write. */
const PENDING_AFTER_MS = 2_000;
/** After our own start proxies need this long to come back; meanwhile they enforce what they have. */
const RECONNECT_MS = 30_000;
/** Proxies named in a message. */
const NAMED_MAX = 3;

type ByProxies = Extract<Enforcement, { kind: "proxies" }>;

interface Tracked {
  readonly key: ResourceKey;
  readonly enforcement: ByProxies;
  /** Of the store, when the rule and all that names it had been put there. */
  readonly epoch: number;
  readonly sinceMs: number;
}

export interface AppliedTrackerOptions {
  readonly clock: Clock;
  readonly epoch: () => number;
  readonly acknowledgement: (epoch: number) => Acknowledgement;
  readonly onDecided: (key: ResourceKey, condition: Condition) => void;
}

export class AppliedTracker {
  readonly #options: AppliedTrackerOptions;
  /** By object; without those that are in force everywhere. */
  readonly #tracked = new Map<string, Tracked>();
  readonly #complainAfterMs: number;
  #timer: Timer | undefined;
  #lateTimer: Timer | undefined;

  constructor(options: AppliedTrackerOptions) {
    this.#options = options;
    this.#complainAfterMs = options.clock.monotonicMs() + RECONNECT_MS;
  }

  /** Rules that were just pushed. */
  track(statuses: readonly ObjectStatus[]): void {
    const { clock, epoch, onDecided } = this.#options;
    for (const { key, enforcement } of statuses) {
      if (enforcement?.kind === "proxies") {
        const sinceMs = clock.monotonicMs();
        this.#tracked.set(keyText(key), { key, enforcement, epoch: epoch(), sinceMs });
      } else {
        this.#tracked.delete(keyText(key));
        if (enforcement !== undefined) onDecided(key, notEnforced(enforcement.why));
      }
    }
    if (this.#tracked.size > 0) this.touch();
  }

  /** The object is gone. */
  forget(key: ResourceKey): void {
    this.#tracked.delete(keyText(key));
  }

  /** Proxies have acknowledged something, or are gone. */
  touch(): void {
    if (this.#tracked.size === 0) return;
    this.#timer ??= this.#options.clock.after(LOOK_AFTER_MS, () => {
      this.#timer = undefined;
      this.#look();
    });
  }

  close(): void {
    this.#timer?.cancel();
    this.#lateTimer?.cancel();
    this.#tracked.clear();
  }

  #look(): void {
    const { acknowledgement, clock, onDecided } = this.#options;
    const byEpoch = new Map<number, Acknowledgement>();
    const nowMs = clock.monotonicMs();
    const lateBefore = nowMs < this.#complainAfterMs ? -Infinity : nowMs - PENDING_AFTER_MS;
    for (const [text, { key, enforcement, epoch, sinceMs }] of this.#tracked) {
      const told = byEpoch.getOrInsertComputed(epoch, acknowledgement);
      const rejections = told.rejections.filter(({ reason }) => names(reason, enforcement));
      const complete = told.clients > 0 && told.waiting.length === 0;
      if (rejections.length > 0) onDecided(key, rejected(rejections));
      else if (complete) onDecided(key, acknowledged(enforcement, told.clients));
      else if (sinceMs <= lateBefore) onDecided(key, pending(told));
      if (complete && rejections.length === 0) this.#tracked.delete(text);
    }
    if (this.#tracked.size === 0) return;
    this.#lateTimer ??= clock.after(PENDING_AFTER_MS, () => {
      this.#lateTimer = undefined;
      this.#look();
    });
  }
}

function names(reason: string, { resource }: ByProxies): boolean {
  return resource !== undefined && reason.includes(resource);
}

function notEnforced(why: string): Condition {
  return { type: APPLIED, status: "False", reason: "NotEnforced", message: why };
}

function acknowledged({ where }: ByProxies, clients: number): Condition {
  const message = `in force at ${where}: acknowledged by ${count(clients)}`;
  return { type: APPLIED, status: "True", reason: "Acknowledged", message };
}

function pending({ clients, waiting }: Acknowledgement): Condition {
  if (clients === 0) {
    const message = "no ztunnel is connected: nobody enforces it yet";
    return { type: APPLIED, status: "False", reason: "NoProxies", message };
  }
  const message = `acknowledged by ${clients - waiting.length} of ${count(clients)}; waiting for ${some(waiting)}`;
  return { type: APPLIED, status: "False", reason: "Pending", message };
}

function rejected(rejections: Acknowledgement["rejections"]): Condition {
  const proxies = [...new Set(rejections.map(({ proxy }) => proxy))];
  const message = `refused by ${some(proxies)}: ${rejections.at(-1)?.reason}`;
  return { type: APPLIED, status: "False", reason: "Rejected", message };
}

function count(ztunnels: number): string {
  return ztunnels === 1 ? "1 ztunnel" : `${ztunnels} ztunnels`;
}

function some(proxies: readonly string[]): string {
  const more = proxies.length - NAMED_MAX;
  const named = proxies.toSorted().slice(0, NAMED_MAX).join(", ");
  return more > 0 ? `${named} and ${more} more` : named;
}
