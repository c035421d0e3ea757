// Readiness as a set of named tasks: the process is ready when none is pending. A task may become
// pending again. Serves GET /healthz/ready through an AdminServer route.

import type { AdminRoute } from "./admin-server.ts";

/** One thing the process waits for. Both calls are idempotent. */
export interface ReadinessTask {
  ready(): void;
  /** Not ready any more, for instance after losing a connection that matters. */
  block(): void;
}

export class Readiness {
  readonly #pending = new Set<string>();
  readonly #waiters: (() => void)[] = [];

  /** Adds a pending task. Names appear in the "not ready" answer; equal names share one task. */
  register(name: string): ReadinessTask {
    this.#pending.add(name);
    return {
      ready: () => {
        this.#pending.delete(name);
        if (this.ready) for (const resolve of this.#waiters.splice(0)) resolve();
      },
      block: () => void this.#pending.add(name),
    };
  }

  get ready(): boolean {
    return this.#pending.size === 0;
  }

  /** Names of what is not ready yet, in order of registration. */
  get pending(): readonly string[] {
    return [...this.#pending];
  }

  /** Resolves when nothing is pending. */
  whenReady(): Promise<void> {
    return this.ready ? Promise.resolve() : new Promise((resolve) => this.#waiters.push(resolve));
  }
}

/** 200 "ready\n", or 500 naming what is pending, as Istio's ztunnel answers. */
export function readinessRoute(readiness: Readiness, path = "/healthz/ready"): AdminRoute {
  return {
    method: "GET",
    path,
    handle: () =>
      readiness.ready
        ? { status: 200, body: "ready\n" }
        : { status: 500, body: `not ready, pending: ${readiness.pending.join(", ")}\n` },
  };
}
