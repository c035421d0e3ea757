// Writes statuses to their objects, one after the other, when a writer is there; what is wanted now is shown
// by /debug either way. Coalesces by object, and leaves alone what has been written already.

import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { keyText, type ResourceKey, type ResourceWriter } from "@ambit/common/resources/source.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { type Condition, type ObjectStatus, withStatus } from "./object-status.ts";

export interface StatusWriterOptions {
  readonly writer: ResourceWriter | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What could not be written is tried again this long after: a conflict, a store that is away. */
const RETRY_AFTER_MS = 5_000;

export class StatusWriter {
  readonly #options: StatusWriterOptions;
  readonly #wanted = new Map<string, ObjectStatus>();
  /** Conditions that come later than the rest, by the same keys. */
  readonly #applied = new Map<string, Condition>();
  /** Keys of those not written yet. */
  readonly #pending = new Set<string>();
  /** Keys of those that could not be written, and why. */
  readonly #failed = new Map<string, string>();
  #retry: Timer | undefined;
  #writing = false;

  constructor(options: StatusWriterOptions) {
    this.#options = options;
  }

  /** What every object's status should say now. */
  get wanted(): readonly ObjectStatus[] {
    return [...this.#wanted.keys()].map((key) => this.#statusOf(key)!);
  }

  update(statuses: readonly ObjectStatus[]): void {
    for (const status of statuses) {
      const key = keyText(status.key);
      const before = this.#wanted.get(key);
      if (isSame(before, status)) continue;
      // Of another version nothing is known yet.
      const isOther = before?.generation !== status.generation;
      if (isOther || status.enforcement === undefined) this.#applied.delete(key);
      this.#wanted.set(key, status);
      this.#pending.add(key);
    }
    if (!this.#writing) void this.#writePending();
  }

  /** What became known of an object after the rest; nothing when the object is gone. */
  decide(key: ResourceKey, applied: Condition): void {
    const text = keyText(key);
    if (!this.#wanted.has(text)) return;
    if (isSame(this.#applied.get(text), applied)) return;
    this.#applied.set(text, applied);
    this.#pending.add(text);
    if (!this.#writing) void this.#writePending();
  }

  /** The object is gone. */
  forget(key: ResourceKey): void {
    this.#wanted.delete(keyText(key));
    this.#applied.delete(keyText(key));
    this.#pending.delete(keyText(key));
    this.#failed.delete(keyText(key));
  }

  close(): void {
    this.#retry?.cancel();
    this.#pending.clear();
  }

  #statusOf(key: string): ObjectStatus | undefined {
    const status = this.#wanted.get(key);
    const applied = this.#applied.get(key);
    if (status === undefined || applied === undefined) return status;
    return { ...status, conditions: [...status.conditions, applied] };
  }

  /** What comes meanwhile joins. */
  async #writePending(): Promise<void> {
    const { writer, clock } = this.#options;
    this.#writing = true;
    for (const key of this.#pending) {
      this.#pending.delete(key);
      const status = this.#statusOf(key)!;
      try {
        await writer?.patch(status.key, (object) => withStatus(object, status, clock.nowMs()));
        this.#failed.delete(key);
      } catch (error) {
        this.#fail(key, errorMessage(error));
      }
    }
    this.#writing = false;
  }

  /** Reports it once for each reason, and tries again. */
  #fail(key: string, error: string): void {
    const { clock, log } = this.#options;
    if (this.#failed.get(key) !== error) log.warn("cannot write status", { object: key, error });
    this.#failed.set(key, error);
    this.#retry ??= clock.after(RETRY_AFTER_MS, () => {
      this.#retry = undefined;
      for (const failed of this.#failed.keys()) this.#pending.add(failed);
      if (!this.#writing) void this.#writePending();
    });
  }
}

function isSame<T extends object>(a: T | undefined, b: T): boolean {
  return a !== undefined && JSON.stringify(a) === JSON.stringify(b);
}
