// One long-running program of the mesh: started again when it ends, ever more slowly while it keeps
// ending, with its output in a file. Owns the child process.

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { sendSignal } from "./leftovers.ts";

export interface ProcessSpec {
  readonly command: readonly [string, string[]];
  readonly env: NodeJS.ProcessEnv;
  readonly log: string;
  /** When a program that ended is started again. */
  readonly restart: "always" | "on-failure" | "never";
}

export type ProcessState = "starting" | "running" | "restarting" | "stopped";

/** The first restart is all but immediate; a program that cannot run is tried every ten seconds. */
export const RESTART_DELAY_MIN_MS = 50;
export const RESTART_DELAY_MAX_MS = 10_000;
/** A program that ran this long is taken to be sound: the delay starts over. */
const SOUND_AFTER_MS = 5_000;

export interface ProcessEvents {
  /** The process changed state. */
  onChange(): void;
  /** It ended by itself; `code` is the exit code, or 128 + the signal's number. */
  onExit?(code: number): void;
}

export class SupervisedProcess {
  readonly #spec: ProcessSpec;
  readonly #clock: Clock;
  readonly #events: ProcessEvents;
  #child: ChildProcess | undefined;
  #state: ProcessState = "stopped";
  #restarts = 0;
  #delayMs = RESTART_DELAY_MIN_MS;
  #timer: Timer | undefined;
  #ended = Promise.resolve();

  constructor(spec: ProcessSpec, clock: Clock, events: ProcessEvents) {
    this.#spec = spec;
    this.#clock = clock;
    this.#events = events;
  }

  get state(): ProcessState {
    return this.#state;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get restarts(): number {
    return this.#restarts;
  }

  start(): void {
    const [file, args] = this.#spec.command;
    const log = openSync(this.#spec.log, "a");
    const startedMs = this.#clock.monotonicMs();
    // A session of its own: signals reach the whole process group, Ctrl-C in our terminal does not.
    const child = spawn(file, args, {
      env: this.#spec.env,
      stdio: ["ignore", log, log],
      detached: true,
    });
    closeSync(log);
    this.#child = child;
    this.#enter("starting");
    child.once("spawn", () => this.#enter("running"));
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#ended = promise;
    const ended = (code: number) => {
      resolve();
      this.#onEnd(code, this.#clock.monotonicMs() - startedMs);
    };
    child.once("error", () => child.pid === undefined && ended(127));
    child.once("exit", (code, signal) => ended(code ?? 128 + signalNumber(signal)));
  }

  /** Asks the process group to end and does not start it again; resolves when the program ended. */
  async stop(graceMs: number): Promise<void> {
    this.#timer?.cancel();
    this.#timer = undefined;
    const { pid } = this;
    this.#enter("stopped");
    if (pid === undefined) return;
    sendSignal(-pid, "SIGTERM");
    const kill = this.#clock.after(graceMs, () => sendSignal(-pid, "SIGKILL"));
    await this.#ended;
    kill.cancel();
    sendSignal(-pid, "SIGKILL");
  }

  #onEnd(code: number, ranMs: number): void {
    this.#child = undefined;
    if (this.#state === "stopped") return;
    this.#events.onExit?.(code);
    const { restart } = this.#spec;
    if (restart === "never" || (restart === "on-failure" && code === 0)) {
      return this.#enter("stopped");
    }
    if (ranMs >= SOUND_AFTER_MS) this.#delayMs = RESTART_DELAY_MIN_MS;
    this.#enter("restarting");
    this.#timer = this.#clock.after(this.#delayMs, () => {
      this.#restarts++;
      this.start();
    });
    this.#delayMs = Math.min(this.#delayMs * 2, RESTART_DELAY_MAX_MS);
  }

  #enter(state: ProcessState): void {
    if (this.#state === "stopped" && state === "running") return;
    this.#state = state;
    this.#events.onChange();
  }
}

const SIGNALS: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 };

function signalNumber(signal: NodeJS.Signals | null): number {
  return SIGNALS[signal ?? ""] ?? 0;
}
