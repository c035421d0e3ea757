// The main thread's end of the workers: starts them, asks all or one, and ends the process when one dies.

import { Worker } from "node:worker_threads";
import type { Config } from "../config.ts";
import type { ProfiledThreads, RunningProfile } from "../profile.ts";
import type {
  RequestMessage,
  RequestName,
  Requests,
  WorkerInit,
  WorkerMessage,
} from "./protocol.ts";

interface Pending {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export interface WorkerEvents {
  onMessage(message: Exclude<WorkerMessage, { type: "answer" | "failure" | "ready" }>): void;
  /** A worker ended by itself: its part of the traffic is gone, the process must restart. */
  onDeath(error: Error): void;
}

class WorkerLink {
  readonly #worker: Worker;
  readonly #waitedMs: Float64Array;
  readonly #pending = new Map<number, Pending>();
  readonly ready: Promise<void>;
  #nextId = 1;
  #stopping = false;

  constructor(init: WorkerInit, events: WorkerEvents) {
    this.#waitedMs = init.waitedMs;
    this.#worker = new Worker(new URL("./worker.ts", import.meta.url), {
      workerData: init,
      name: `datapath-${init.index}`,
    });
    const ready = Promise.withResolvers<void>();
    this.ready = ready.promise;
    this.#worker.on("message", (message: WorkerMessage) => {
      if (message.type === "ready") ready.resolve();
      else if (message.type === "answer") this.#take(message.id)?.resolve(message.value);
      else if (message.type === "failure") this.#take(message.id)?.reject(new Error(message.error));
      else events.onMessage(message);
    });
    const died = (error: Error) => {
      if (this.#stopping) return;
      this.#stopping = true;
      ready.reject(error);
      for (const pending of this.#pending.values()) pending.reject(error);
      events.onDeath(error);
    };
    this.#worker.on("error", (error) =>
      died(error instanceof Error ? error : new Error(String(error))),
    );
    this.#worker.on("exit", (code) =>
      died(new Error(`datapath worker ${init.index} exited with code ${code}`)),
    );
  }

  ask<N extends RequestName>(name: N, ask: Requests[N]["ask"]): Promise<Requests[N]["answer"]> {
    const id = this.#nextId++;
    const message: RequestMessage<N> = { id, name, ask };
    return new Promise((resolve, reject) => {
      this.#pending.set(id, {
        resolve: (value) => resolve(value as Requests[N]["answer"]),
        reject,
      });
      this.#worker.postMessage(message);
    });
  }

  /** Share of time the thread was busy so far. */
  get utilization(): number {
    const { idle, active } = this.#worker.performance.eventLoopUtilization();
    return active === 0 ? 0 : (active - this.#waitedMs[0]!) / (idle + active);
  }

  startProfile(kind: "cpu" | "heap"): Promise<RunningProfile> {
    return kind === "cpu" ? this.#worker.startCpuProfile() : this.#worker.startHeapProfile();
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#worker.terminate();
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }
}

/** The workers as those who only ask them see them. */
export interface Workers {
  /** Asks every worker; the answers come in worker order. Rejects when one of them fails. */
  askAll<N extends RequestName>(name: N, ask: Requests[N]["ask"]): Promise<Requests[N]["answer"][]>;
  /** Asks one worker, for what all of them know alike. */
  askOne<N extends RequestName>(name: N, ask: Requests[N]["ask"]): Promise<Requests[N]["answer"]>;
}

export class WorkerHost implements Workers, ProfiledThreads {
  readonly #links: readonly WorkerLink[];

  constructor(config: Config, events: WorkerEvents) {
    this.#links = Array.from(
      { length: config.workerThreads },
      (_, index) => new WorkerLink({ index, config, waitedMs: sharedNumber() }, events),
    );
  }

  /** Resolves when every worker can take requests. */
  async ready(): Promise<void> {
    await Promise.all(this.#links.map(({ ready }) => ready));
  }

  askAll<N extends RequestName>(
    name: N,
    ask: Requests[N]["ask"],
  ): Promise<Requests[N]["answer"][]> {
    return Promise.all(this.#links.map((link) => link.ask(name, ask)));
  }

  askOne<N extends RequestName>(name: N, ask: Requests[N]["ask"]): Promise<Requests[N]["answer"]> {
    return this.#links[0]!.ask(name, ask);
  }

  /** Share of time each worker is busy, by thread name. */
  get utilization(): ReadonlyMap<string, number> {
    return new Map(this.#links.map((link, index) => [`datapath-${index}`, link.utilization]));
  }

  startProfile(worker: number, kind: "cpu" | "heap"): Promise<RunningProfile> | undefined {
    return this.#links[worker]?.startProfile(kind);
  }

  async stop(): Promise<void> {
    await Promise.all(this.#links.map((link) => link.stop()));
  }
}

function sharedNumber(): Float64Array<SharedArrayBuffer> {
  return new Float64Array(new SharedArrayBuffer(Float64Array.BYTES_PER_ELEMENT));
}
