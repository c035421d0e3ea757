// The proxies of the scale bench, seen from istiod's process: they live in one of their own.

import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import { ZTUNNEL_TYPES } from "@ambit/common/xds/resource-type.ts";
import type { OpenClients, Received } from "./clients.ts";
import { cpuSince } from "./cpu.ts";

/** Milliseconds since the epoch, comparable between processes, finer than Date.now(). */
export function preciseNowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** What the proxies have received so far, and waiting for it. */
export class Proxies {
  readonly #address: string;
  readonly #process: ChildProcess;
  #resources = 0;
  #bytes = 0;
  #responses = 0;
  #lastMs = 0;
  #changed: (() => void) | undefined;

  constructor(address: string) {
    this.#address = address;
    this.#process = fork(join(import.meta.dirname, "clients.ts"));
    this.#process.on("message", ({ resources, bytes, atMs }: Received) => {
      this.#resources += resources;
      this.#bytes += bytes;
      this.#responses++;
      this.#lastMs = atMs;
      this.#changed?.();
    });
  }

  [Symbol.dispose](): void {
    this.#process.disconnect();
  }

  /** Connects `count` proxies; resolves when each has a response for every type. */
  async open(count: number): Promise<{ tookMs: number; bytes: number; cpuMs: number }> {
    this.#reset();
    const startMs = preciseNowMs();
    const start = process.cpuUsage();
    const order: OpenClients = { address: this.#address, count };
    this.#process.send(order);
    await this.#until(() => this.#responses >= count * ZTUNNEL_TYPES.length);
    return { tookMs: this.#lastMs - startMs, bytes: this.#bytes, cpuMs: cpuSince(start) };
  }

  /** Resolves with the time when so many resources had arrived since the last call. */
  async received(resources: number): Promise<number> {
    await this.#until(() => this.#resources >= resources);
    const atMs = this.#lastMs;
    this.#reset();
    return atMs;
  }

  #reset(): void {
    this.#resources = 0;
    this.#bytes = 0;
    this.#responses = 0;
  }

  async #until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#changed = resolve;
      await promise;
    }
  }
}
