// The file of revocation lists (CRL_PATH, ztunnel §5.3): followed while we run. A file that is not there
// yet, or does not parse, is said in the log; what was in force stays in force.

import { FileFollower } from "@ambit/common/process/file-follower.ts";
import type { Clock } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { parseRevocationLists } from "@ambit/common/tls/revocation-list.ts";

export interface RevocationFileOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called with the bytes of each file that parses; an empty one takes nothing back. */
  onLoaded(file: Uint8Array): void;
}

export class RevocationFile {
  readonly #options: RevocationFileOptions;
  readonly #follower: FileFollower;

  /** Loads what is there before it returns. */
  constructor(options: RevocationFileOptions) {
    this.#options = options;
    const { path, clock, log } = options;
    this.#follower = new FileFollower({
      path,
      clock,
      onContent: (content) => this.#load(content),
      onError: (error) => log.warn("revocation lists not read", { path, error }),
    });
  }

  close(): void {
    this.#follower.close();
  }

  #load(content: Buffer | undefined): void {
    const { path, log } = this.#options;
    if (content === undefined) {
      const effect = "those loaded before, if any, stay in force";
      return log.warn("no file of revocation lists", { path, effect });
    }
    let lists: ReturnType<typeof parseRevocationLists>;
    try {
      lists = parseRevocationLists(content);
    } catch (error) {
      return log.warn("revocation lists not loaded", { path, error: errorMessage(error) });
    }
    this.#options.onLoaded(content);
    const revoked = lists.reduce((sum, { serials }) => sum + serials.size, 0);
    log.info("revocation lists loaded", { path, lists: lists.length, revoked });
  }
}
