// Load on a local mesh from a pod of it, as tests use it: requests on new connections, connections that stay,
// and how either fared while something happened.

import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Signal } from "@ambit/common/testing/signal.ts";
import type { ExpectStatic } from "vitest";
import { type LoadOptions, type Outcome, ROUND } from "./options.ts";

export type { Gap, Outcome } from "./options.ts";

export const HOSTS = ["near", "far"];
const PROGRAM = join(import.meta.dirname, "client.ts");

/** Fewer would mean that the load waited for something. */
const REQUESTS_PER_SECOND_MIN = 20;

const USUAL: LoadOptions = {
  hosts: HOSTS,
  requests: "one by one",
  pauseMs: 5,
  lasting: 0,
  answerTimeoutMs: 5_000,
};

/** Whatever runs pods: a lab, or what is left of one. */
export interface Pods {
  /** Runs a program in NAME.NAMESPACE, with pipes; a SIGTERM reaches it. */
  inPod(pod: string, command: readonly string[]): ChildProcess;
}

export class Load {
  readonly #child: ChildProcess;
  readonly #signal = new Signal();
  readonly #ended: Promise<void>;
  #rounds = 0;
  #lastLine = "";

  private constructor(child: ChildProcess) {
    this.#child = child;
    const lines = createInterface({ input: child.stdout! });
    lines.on("line", (line) => {
      if (line === ROUND) this.#rounds++;
      else this.#lastLine = line;
      this.#signal.changed();
    });
    this.#ended = new Promise((resolve) => lines.on("close", resolve));
  }

  /** Resolves once everything it talks to has answered. */
  static async start(pods: Pods, options: Partial<LoadOptions> = {}): Promise<Load> {
    const words = JSON.stringify({ ...USUAL, ...options });
    const load = new Load(pods.inPod("client.shop", [process.execPath, PROGRAM, words]));
    await load.rounds(1);
    return load;
  }

  /** Resolves when everything has answered so many times more; of the first round it may have been before. */
  async rounds(count: number): Promise<void> {
    const wanted = this.#rounds + count;
    await Promise.race([this.#signal.until(() => this.#rounds >= wanted), this.#endedEarly()]);
  }

  async stop(): Promise<Outcome> {
    this.#child.kill("SIGTERM");
    await this.#ended;
    return JSON.parse(this.#lastLine) as Outcome;
  }

  async #endedEarly(): Promise<never> {
    await this.#ended;
    throw new Error(`the load ended by itself: ${this.#lastLine}`);
  }
}

/** How a load fared that was under way before `body` and until it was done. */
export async function underLoad(
  pods: Pods,
  options: Partial<LoadOptions>,
  body: (load: Load) => Promise<unknown>,
): Promise<Outcome> {
  const load = await Load.start(pods, options);
  try {
    await body(load);
  } catch (error) {
    await load.stop();
    throw error;
  }
  return await load.stop();
}

/** Every request was answered, and there were as many as there should be. */
export function expectAllServed(
  expect: ExpectStatic,
  { sent, failures }: Outcome,
  seconds: number,
): void {
  expect(failures).toEqual([]);
  expect(sent).toBeGreaterThan(seconds * REQUESTS_PER_SECOND_MIN);
}
