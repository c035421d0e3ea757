// Readiness as a set of named tasks: the process is ready when none is pending. A task may become
// pending again, for instance when a connection that matters is lost.

import { type Routes, textReply } from "./http-server.ts";

export class Readiness {
  readonly #pending = new Set<string>();
  readonly #waiters: (() => void)[] = [];

  /** Adds pending tasks; names appear in the "not ready" answer. Idempotent. */
  expect(...names: readonly string[]): void {
    for (const name of names) this.#pending.add(name);
  }

  /** Ends a task. Idempotent. */
  done(name: string): void {
    this.#pending.delete(name);
    if (this.ready) for (const resolve of this.#waiters.splice(0)) resolve();
  }

  get ready(): boolean {
    return this.#pending.size === 0;
  }

  /** Names of what is not ready yet, oldest first. */
  get pending(): readonly string[] {
    return [...this.#pending];
  }

  /** Resolves as soon as nothing is pending. */
  whenReady(): Promise<void> {
    return this.ready ? Promise.resolve() : new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** GET `path`: 200 "ready\n", or 500 naming what is pending, as Istio's ztunnel answers (§7.3). */
  routes(path: string): Routes {
    return {
      [`GET ${path}`]: () =>
        this.ready
          ? textReply("ready\n")
          : textReply(`not ready, pending: ${this.pending.join(", ")}\n`, 500),
    };
  }
}
