// Gives shortcuts to pods that have begun to talk directly: ztunnel decides who may, the agent looks now and then.
// Not when a pod is enrolled, for it takes a while, and most pods never talk so.

import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";

/** Connections that begin earlier go through the node's network, to their end. */
export const SHORTCUT_INTERVAL_MS = 5_000;

export interface ShortcutUpkeepOptions {
  readonly backend: { openShortcuts(pods: Iterable<NetnsHandle>): Promise<void> };
  readonly pods: () => Iterable<NetnsHandle>;
  readonly clock: Clock;
  readonly log: Logger;
}

export class ShortcutUpkeep {
  readonly #options: ShortcutUpkeepOptions;
  #timer: Timer | undefined;
  #looking = Promise.resolve();
  #closed = false;

  constructor(options: ShortcutUpkeepOptions) {
    this.#options = options;
    this.#later();
  }

  /** Resolves when nothing is under way any more. */
  close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    return this.#looking;
  }

  #later(): void {
    this.#timer = this.#options.clock.after(SHORTCUT_INTERVAL_MS, () => {
      this.#looking = this.#look();
    });
  }

  async #look(): Promise<void> {
    const { backend, pods, log } = this.#options;
    try {
      await backend.openShortcuts(pods());
    } catch (error) {
      log.warn("cannot give a shortcut to a pod", { error: errorMessage(error) });
    }
    if (!this.#closed) this.#later();
  }
}
