// `ambit local exec`: a command inside a pod, as if typed there. Signals go to the command, its exit code
// is ours.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { UserError } from "@ambit/common/process/errors.ts";
import { enterCommand } from "../local/enter.ts";
import { findPod } from "../local/find-pod.ts";
import type { Home } from "../local/home.ts";
import { etcFilesOf } from "../local/etc-files.ts";
import { podCgroup } from "../local/node-cgroups.ts";
import { type PodEntry, requireRunning } from "../local/run-file.ts";

/** Where the pod's own programs run; undefined where the node has no cgroups. */
function cgroupOf(home: Home, { node, namespace, name }: PodEntry): string | undefined {
  const folder = podCgroup(home, node, namespace, name);
  return existsSync(folder) ? folder : undefined;
}

/** As shells report a command that was killed. */
const SIGNAL_EXIT_BASE = 128;

/** Resolves to the exit code. The command sees our environment, terminal and working directory. */
export async function execInPod(
  home: Home,
  podName: string,
  command: readonly string[],
): Promise<number> {
  const argv = command[0] === "--" ? command.slice(1) : command;
  if (argv.length === 0) throw new UserError("no command given: write it after --", 2);
  const pod = findPod(requireRunning(home).pods, podName);
  const inside = {
    netns: pod.netns,
    ...etcFilesOf(home, `${pod.namespace}.${pod.name}`),
    workingDir: process.cwd(),
    cgroup: cgroupOf(home, pod),
  };
  const [file, args] = enterCommand(inside, argv);
  const child = spawn(file, args, { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const) {
    // The terminal signals the whole foreground group; others only us, so it is passed on.
    process.on(signal, () => signal === "SIGINT" || child.kill(signal));
  }
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code, signal) =>
      resolve(code ?? SIGNAL_EXIT_BASE + constants.signals[signal ?? "SIGKILL"]),
    );
  });
}
