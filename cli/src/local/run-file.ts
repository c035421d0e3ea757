// run.json: what the running mesh consists of, written by its supervisor at every change and read by
// every other command. It also says whose process the mesh is, so that a stale file is recognised.

import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { z } from "zod";
import { errorCode, UserError } from "@ambit/common/process/errors.ts";
import { DEFAULT_HOME, type Home } from "./home.ts";

const runFile = z.object({
  version: z.literal(1),
  pid: z.number(),
  /** Start time of that process in clock ticks: tells it from a later one with the same number. */
  startTicks: z.string(),
  startedAt: z.string(),
  state: z.enum(["starting", "ready", "stopping"]),
  redirection: z.string(),
  sameNode: z.string(),
  fabric: z.object({ netns: z.string(), link: z.string(), ips: z.array(z.string()) }),
  nodes: z.array(
    z.object({
      name: z.string(),
      netns: z.string(),
      link: z.string(),
      ips: z.array(z.string()),
      podCidrs: z.array(z.string()),
    }),
  ),
  components: z.array(
    z.object({
      name: z.string(),
      node: z.string().optional(),
      netns: z.string(),
      pid: z.number().optional(),
      state: z.enum(["starting", "running", "restarting", "stopped"]),
      restarts: z.number(),
      log: z.string(),
    }),
  ),
  pods: z.array(
    z.object({
      namespace: z.string(),
      name: z.string(),
      app: z.string().optional(),
      node: z.string(),
      netns: z.string(),
      link: z.string(),
      ips: z.array(z.string()),
      pids: z.array(z.number()),
      logs: z.record(z.string(), z.string()),
    }),
  ),
});

export type RunFile = z.infer<typeof runFile>;
export type PodEntry = RunFile["pods"][number];
export type ComponentEntry = RunFile["components"][number];

/** The file's content, or undefined when there is none or it is not one of ours. */
export function readRunFile(home: Home): RunFile | undefined {
  try {
    return runFile.safeParse(JSON.parse(readFileSync(home.runFile, "utf8"))).data;
  } catch (error) {
    if (errorCode(error) === "ENOENT" || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Replaces the file in one step. */
export function writeRunFile(home: Home, content: RunFile): void {
  const draft = `${home.runFile}.${process.pid}`;
  writeFileSync(draft, JSON.stringify(content, undefined, 2));
  renameSync(draft, home.runFile);
}

/** The running mesh; throws a UserError when none runs. */
export function requireRunning(home: Home): RunFile {
  const run = readRunFile(home);
  if (run !== undefined && isAlive(run)) return run;
  const where = home.root === DEFAULT_HOME ? "" : ` in ${home.root}`;
  throw new UserError(`no local mesh is running${where}: start one with "ambit local up"`);
}

export function isAlive(run: Pick<RunFile, "pid" | "startTicks">): boolean {
  return startTicks(run.pid) === run.startTicks;
}

/** When a process started (proc(5), field 22 of stat); undefined when there is none. */
export function startTicks(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field is the command in parentheses, which may itself contain anything.
    const rest = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return rest[0] === "Z" ? undefined : rest[19];
  } catch {
    return undefined;
  }
}
