// Writes statuses to their objects, one after the other, when a writer is there; what is wanted now is shown
// by /debug either way. Coalesces by object, and leaves alone what has been written already.

import type { Clock } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { keyText, type ResourceKey, type ResourceWriter } from "@ambit/common/resources/source.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { type ObjectStatus, withStatus } from "./object-status.ts";

export interface StatusWriterOptions {
  readonly writer: ResourceWriter | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

export class StatusWriter {
  readonly #options: StatusWriterOptions;
  readonly #wanted = new Map<string, ObjectStatus>();
  /** Keys of those not written yet. */
  readonly #pending = new Set<string>();
  #writing = false;

  constructor(options: StatusWriterOptions) {
    this.#options = options;
  }

  /** What every object's status should say now. */
  get wanted(): readonly ObjectStatus[] {
    return [...this.#wanted.values()];
  }

  update(statuses: readonly ObjectStatus[]): void {
    for (const status of statuses) {
      const key = keyText(status.key);
      if (isSame(this.#wanted.get(key), status)) continue;
      this.#wanted.set(key, status);
      this.#pending.add(key);
    }
    if (!this.#writing) void this.#writePending();
  }

  /** The object is gone. */
  forget(key: ResourceKey): void {
    this.#wanted.delete(keyText(key));
    this.#pending.delete(keyText(key));
  }

  /** What comes meanwhile joins. A failed write is reported, and repeated only when the status changes. */
  async #writePending(): Promise<void> {
    const { writer, clock, log } = this.#options;
    this.#writing = true;
    for (const key of this.#pending) {
      this.#pending.delete(key);
      const status = this.#wanted.get(key)!;
      try {
        await writer?.patch(status.key, (object) => withStatus(object, status, clock.nowMs()));
      } catch (error) {
        log.warn("cannot write status", { object: key, error: errorMessage(error) });
      }
    }
    this.#writing = false;
  }
}

function isSame(a: ObjectStatus | undefined, b: ObjectStatus): boolean {
  return a !== undefined && JSON.stringify(a) === JSON.stringify(b);
}
