// A local mesh without its supervisor: its programs and pods run on, and the test replaces programs by others
// of its own making, as an upgrade does. Nobody restarts what ends.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { FolderStore } from "@ambit/common/resources/folder-store.ts";
import { join } from "node:path";
import { httpInNetns } from "../src/netns-http.ts";
import type { Lab, Status } from "./lab.ts";

/** Of a program that replaces another: the ports that both would have otherwise. */
const PORTS = {
  ztunnel: ["ADMIN_PORT", "STATS_PORT", "READINESS_PORT"],
  "cni-agent": ["METRICS_PORT", "HEALTH_PORT"],
} as const;
const READY = {
  ztunnel: { port: "READINESS_PORT", path: "/healthz/ready" },
  "cni-agent": { port: "HEALTH_PORT", path: "/readyz" },
} as const;
type ProgramName = keyof typeof PORTS;

const POLL_MS = 50;
const READY_TIMEOUT_MS = 60_000;
const PORTS_FROM = 21_000;

/** One program, and what another one needs to take its place when it is gone. */
interface Program {
  readonly pid: number;
  readonly child?: ChildProcess;
  readonly env: NodeJS.ProcessEnv;
  readonly place: Place;
}

/** Where a process runs: its cgroup, and namespaces that are held open. */
interface Place {
  readonly cgroup: string;
  readonly netns: string;
  readonly mounts: string;
}

export class OrphanedMesh {
  readonly #lab: Lab;
  readonly #status: Status;
  readonly #programs = new Map<string, Program>();
  #nextPort = PORTS_FROM;

  private constructor(lab: Lab, status: Status) {
    this.#lab = lab;
    this.#status = status;
    for (const { name, node = "", pid = 0 } of status.components) {
      const program = { pid, env: environmentOf(pid), place: placeOf(pid) };
      this.#programs.set(`${name} ${node}`, program);
    }
  }

  /** Kills the supervisor of a running mesh. */
  static async of(lab: Lab): Promise<OrphanedMesh> {
    const status = await lab.status();
    process.kill(status.pid, "SIGKILL");
    return new OrphanedMesh(lab, status);
  }

  get store(): FolderStore {
    return new FolderStore(join(this.#lab.home, "manifests"));
  }

  pid(name: ProgramName, node: string): number {
    return this.#programs.get(`${name} ${node}`)!.pid;
  }

  netns(pod: string): string {
    return this.#status.pods.find(({ name }) => name === pod)!.netns;
  }

  /**
   * Starts another program in the place of the latest one, which may still run, with the same settings but
   * for `changes`. Resolves when it is ready.
   */
  async start(
    name: ProgramName,
    node: string,
    changes: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const key = `${name} ${node}`;
    const before = this.#programs.get(key)!;
    const ports = Object.fromEntries(PORTS[name].map((port) => [port, `${this.#nextPort++}`]));
    const env = { ...before.env, ...ports, ...changes };
    const main = join(import.meta.dirname, `../../${name}/src/main.ts`);
    const log = openSync(join(this.#lab.home, "logs", `${name}-${node}.log`), "a");
    const child = spawn("nsenter", enter(before.place, [process.execPath, main]), {
      env,
      stdio: ["ignore", log, log],
      detached: true,
    });
    closeSync(log);
    await once(child, "spawn");
    this.#programs.set(key, { ...before, pid: child.pid!, child, env });
    await this.#awaitReady(name, node, Number(env[READY[name].port]));
  }

  /** Ends a program and waits until it is gone. */
  async end(pid: number, signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    process.kill(pid, signal);
    while (existsSync(`/proc/${pid}`) && !isZombie(pid)) await pause(POLL_MS);
  }

  /** Starts a program in NAME.NAMESPACE as one of the pod's own, with pipes. */
  inPod(pod: string, command: readonly string[]): ChildProcess {
    const { pids } = this.#status.pods.find((each) => `${each.name}.${each.namespace}` === pod)!;
    const args = enter(placeOf(pids[0]!), command);
    return spawn("nsenter", args, { stdio: ["pipe", "pipe", "inherit"] });
  }

  /** What is left is the lab's to remove. */
  async endAll(): Promise<void> {
    for (const { child } of this.#programs.values()) {
      if (child?.exitCode === null) await this.end(child.pid!, "SIGKILL");
    }
  }

  async #awaitReady(name: ProgramName, node: string, port: number): Promise<void> {
    const { netns } = this.#status.nodes.find((each) => each.name === node)!;
    const target = { netns: `/run/netns/${netns}`, ip: "127.0.0.1", port };
    const endMs = performance.now() + READY_TIMEOUT_MS;
    for (;;) {
      const answer = await httpInNetns(target, READY[name].path, { timeoutMs: 1_000 }).catch(
        () => undefined,
      );
      if (answer?.status === 200) return;
      if (performance.now() > endMs) throw new Error(`the new ${name} of ${node} is not ready`);
      await pause(POLL_MS);
    }
  }
}

/** Joins the cgroup, then becomes the program. */
const SCRIPT = '[ -z "$1" ] || echo 0 > "$1/cgroup.procs" || exit 126; shift; exec "$@"';

function enter({ netns, mounts, cgroup }: Place, command: readonly string[]): string[] {
  return [`--net=${netns}`, `--mount=${mounts}`, "sh", "-c", SCRIPT, "sh", cgroup, ...command];
}

function placeOf(pid: number): Place {
  const held = (kind: string) => {
    return `/proc/${process.pid}/fd/${openSync(`/proc/${pid}/ns/${kind}`, "r")}`;
  };
  return { cgroup: cgroupOf(pid), netns: held("net"), mounts: held("mnt") };
}

function environmentOf(pid: number): NodeJS.ProcessEnv {
  const lines = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
  const pairs = lines
    .filter((line) => line.includes("="))
    .map((line) => {
      const at = line.indexOf("=");
      return [line.slice(0, at), line.slice(at + 1)] as const;
    });
  return Object.fromEntries(pairs);
}

function cgroupOf(pid: number): string {
  const [, path = ""] = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8")) ?? [];
  const mounts = readFileSync("/proc/self/mounts", "utf8");
  const [, mount = ""] = /^\S+ (\S+) cgroup2 /m.exec(mounts) ?? [];
  return path === "" || path === "/" ? "" : join(mount, path);
}

function isZombie(pid: number): boolean {
  try {
    return / Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return true;
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
