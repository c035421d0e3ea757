// Follows one file's content while it is written, replaced, or moved into place behind symbolic links, as
// Kubernetes does with mounted volumes. By looking: watching misses what happens above the file.

import { readFileSync, statSync } from "node:fs";
import type { Clock, Timer } from "./clock.ts";
import { errorCode, errorMessage } from "./errors.ts";

/** As often as Istio's ztunnel takes to settle a change; a look costs one system call. */
export const FOLLOW_INTERVAL_MS = 2_000;

export interface FileFollowerOptions {
  readonly path: string;
  readonly clock: Clock;
  /** Called with every new content; undefined when there is no file (any more). */
  onContent(content: Buffer | undefined): void;
  /** Called once for each new reason why the file cannot be read. */
  onError(reason: string): void;
}

const MISSING = "missing";

export class FileFollower {
  readonly #options: FileFollowerOptions;
  /** What the file looked like when it was last read. */
  #seen: string | undefined;
  /** Why it could not be read last. */
  #error: string | undefined;
  #timer: Timer | undefined;

  /** Reports the present content at once, before it returns. */
  constructor(options: FileFollowerOptions) {
    this.#options = options;
    this.#look();
  }

  close(): void {
    this.#timer?.cancel();
  }

  #look(): void {
    this.#timer = this.#options.clock.after(FOLLOW_INTERVAL_MS, () => this.#look());
    const found = this.#read();
    if (found !== undefined) this.#options.onContent(found.content);
  }

  /** undefined when nothing changed, or when the file cannot be read. */
  #read(): { content: Buffer | undefined } | undefined {
    const { path } = this.#options;
    try {
      const looks = appearanceOf(path);
      if (looks === this.#seen) return undefined;
      const content = looks === MISSING ? undefined : readFileSync(path);
      this.#seen = looks;
      this.#error = undefined;
      return { content };
    } catch (error) {
      const reason = errorMessage(error);
      if (reason !== this.#error) this.#options.onError(reason);
      this.#error = reason;
      return undefined;
    }
  }
}

function appearanceOf(path: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join();
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return MISSING;
    throw error;
  }
}
