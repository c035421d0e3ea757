// What direct connections need now and then, done by one worker: books are kept, connections of an earlier
// process are taken over, certificates that ran out end what they vouched for.

import { createServer } from "node:net";
import type { ConnectionSummary } from "../proxy/connection.ts";
import type { ProxyContext } from "../proxy/context.ts";
import type { DirectPaths } from "./direct-paths.ts";
import { FlowAccounts } from "./flow-accounts.ts";

/** An access line is at most so late; the kernel keeps some thousand ends for us. */
const READ_MS = 100;
const SWEEP_MS = 5_000;

export class DirectUpkeep {
  readonly #context: ProxyContext;
  readonly #paths: DirectPaths;
  #accounts: FlowAccounts | undefined;
  /** It is we who read what the kernel tells of ends. */
  #keepsBooks = false;
  #sweptMs = 0;

  constructor(context: ProxyContext, paths: DirectPaths) {
    this.#context = context;
    this.#paths = paths;
  }

  /**
   * To be called when pods have changed. Begins with the first one that is steered, as soon as this
   * process is the only one that does: a predecessor goes on until it has ended.
   */
  podsChanged(): void {
    const { kernel, pods } = this.#paths;
    if (kernel === undefined) return;
    if (this.#accounts === undefined) {
      // What a process that is no more decided holds no longer.
      kernel.withdrawAll();
      this.#accounts = new FlowAccounts(this.#context, kernel, ({ pod }) => {
        this.#paths.distrust(this.#context, pod);
      });
      this.#awaitTurn();
    }
    this.#accounts.know(pods);
  }

  summaries(): ConnectionSummary[] {
    return this.#keepsBooks ? this.#accounts!.summaries() : [];
  }

  /** To be called before metrics are collected. */
  sync(): void {
    if (this.#keepsBooks) this.#accounts!.sync();
  }

  /** An abstract socket is the lock: it goes with its process, however that ends. */
  #awaitTurn(): void {
    const { clock, config } = this.#context;
    const { nodeName = "" } = config;
    const lock = createServer().listen(`\0ambit-direct-upkeep/${nodeName.slice(-LOCK_NAME_MAX)}`);
    lock.unref();
    lock.once("listening", () => {
      this.#keepsBooks = true;
      this.#tick();
    });
    lock.once("error", () => {
      clock.after(SWEEP_MS, () => this.#awaitTurn());
    });
  }

  #tick(): void {
    const { clock, log } = this.#context;
    try {
      if (clock.monotonicMs() - this.#sweptMs >= SWEEP_MS) this.#sweep();
      else this.#accounts?.readEnded();
    } catch (error) {
      log.error("direct connections cannot be accounted for", { error: String(error) });
    }
    clock.after(READ_MS, () => this.#tick());
  }

  #sweep(): void {
    this.#sweptMs = this.#context.clock.monotonicMs();
    this.#paths.adopt();
    this.#paths.review(this.#context);
    this.#accounts?.sync();
  }
}

/** Names of abstract sockets have 108 bytes. */
const LOCK_NAME_MAX = 80;
