// `ambit local restart`: a program of the mesh, replaced while the mesh goes on. ztunnel is handed over
// as on a cluster: a successor serves the node before the present one is asked to go, so that no
// connection is refused or reset. The supervisor starts what ended again, and that takes over in turn.

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { UserError } from "@ambit/common/process/errors.ts";
import { enterCommand } from "../local/enter.ts";
import { etcFilesOf } from "../local/etc-files.ts";
import { type Home, netnsPath } from "../local/home.ts";
import { sendSignal } from "../local/leftovers.ts";
import { type ComponentEntry, requireRunning, startTicks } from "../local/run-file.ts";
import { httpInNetns, LOOPBACK } from "../netns-http.ts";

/** Of the successor that bridges the gap: it lives beside the one that has the usual ports. */
const BRIDGE_PORTS = { ADMIN_PORT: "15100", STATS_PORT: "15120", READINESS_PORT: "15121" };

const READY: Readonly<Record<string, { readonly port: number; readonly path: string }>> = {
  ztunnel: { port: 15_021, path: "/healthz/ready" },
  "cni-agent": { port: 8_000, path: "/readyz" },
  "istiod-lite": { port: 8_080, path: "/ready" },
};

const POLL_MS = 50;
const READY_TIMEOUT_MS = 30_000;
/** Longer than any drain deadline one would choose for a mesh on one's own machine. */
const END_TIMEOUT_MS = 120_000;

/** Replaces a program on one or on all nodes, one after the other. */
export async function restart(home: Home, name: string, node: string | undefined): Promise<void> {
  const { components } = requireRunning(home);
  const wanted = components.filter((each) => each.name === name);
  const chosen = wanted.filter((each) => node === undefined || each.node === node);
  if (chosen.length === 0) {
    const nodes = wanted.flatMap((each) => each.node ?? []).join(", ");
    throw new UserError(`${name} does not run on "${node}": it runs on ${nodes || "no node"}`);
  }
  for (const component of chosen) {
    const startMs = performance.now();
    await (name === "ztunnel" ? handOver(home, component) : replace(home, component));
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
    console.log(`${where(component)}: replaced in ${seconds} s`);
  }
}

function where({ name, node }: ComponentEntry): string {
  return node === undefined ? name : `${name} on ${node}`;
}

/** The successor comes, the present one drains and goes, the supervisor's comes, the successor goes. */
async function handOver(home: Home, component: ComponentEntry): Promise<void> {
  const bridge = startBeside(home, component);
  try {
    await untilReady(component, Number(BRIDGE_PORTS.READINESS_PORT), bridge);
    await replace(home, component);
  } finally {
    await end(bridge);
  }
}

/** The same program with the same settings, in the same place, on other ports. */
function startBeside(home: Home, component: ComponentEntry): ChildProcess {
  const { pid, netns, node = "fabric", log } = component;
  if (pid === undefined) throw new UserError(`${where(component)} does not run: try again`);
  const inside = {
    netns,
    ...etcFilesOf(home, node),
    workingDir: home.root,
    cgroup: cgroupOf(pid),
  };
  const output = openSync(log, "a");
  const [file, args] = enterCommand(inside, readList(pid, "cmdline"));
  const child = spawn(file, args, {
    env: { ...Object.fromEntries(readList(pid, "environ").map(parseVariable)), ...BRIDGE_PORTS },
    stdio: ["ignore", output, output],
    detached: true,
  });
  closeSync(output);
  return child;
}

/** A file of /proc/PID whose entries end with NUL. */
function readList(pid: number, file: "cmdline" | "environ"): string[] {
  return readFileSync(`/proc/${pid}/${file}`, "utf8").split("\0").slice(0, -1);
}

function parseVariable(text: string): [string, string] {
  const end = text.indexOf("=");
  return [text.slice(0, end), text.slice(end + 1)];
}

/** The folder of a process's cgroup; undefined where cgroups of version 2 are not mounted. */
function cgroupOf(pid: number): string | undefined {
  const [, path] = /^0::(\/.+)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8")) ?? [];
  const mounts = readFileSync("/proc/self/mounts", "utf8");
  const [, root] = /^\S+ (\S+) cgroup2 /m.exec(mounts) ?? [];
  return path === undefined || root === undefined ? undefined : `${root}${path}`;
}

/** Ends the program; its supervisor starts it again. Resolves when that one is ready. */
async function replace(home: Home, component: ComponentEntry): Promise<void> {
  const { pid, name } = component;
  if (pid === undefined) throw new UserError(`${where(component)} does not run: try again`);
  const before = startTicks(pid);
  sendSignal(pid, "SIGTERM");
  await until(`${where(component)} does not end`, END_TIMEOUT_MS, () =>
    Promise.resolve(startTicks(pid) !== before),
  );
  await until(`${where(component)} is not started again`, READY_TIMEOUT_MS, () => {
    const { components } = requireRunning(home);
    const now = components.find((each) => each.name === name && each.node === component.node);
    return Promise.resolve(now?.pid !== undefined && now.pid !== pid);
  });
  await untilReady(component, READY[name]!.port);
}

async function untilReady(
  component: ComponentEntry,
  port: number,
  process?: ChildProcess,
): Promise<void> {
  const target = { netns: netnsPath(component.netns), ip: LOOPBACK, port };
  await until(
    `${where(component)} is not ready: see ${component.log}`,
    READY_TIMEOUT_MS,
    async () => {
      if (process !== undefined && process.exitCode !== null) {
        throw new UserError(`a second ${where(component)} cannot start: see ${component.log}`);
      }
      const { path } = READY[component.name]!;
      const answer = await httpInNetns(target, path, { timeoutMs: 2_000 }).catch(() => undefined);
      return answer?.status === 200;
    },
  );
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), END_TIMEOUT_MS);
  await ended;
  clearTimeout(timer);
}

async function until(
  problem: string,
  timeoutMs: number,
  condition: () => Promise<boolean>,
): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new UserError(`${problem} (${timeoutMs / 1000} s)`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
