// Runs nft and ip inside a network namespace. A child inherits the namespace of the thread that forks
// it, so the spawn alone happens inside and no helper program is needed. Bounded in time and output.

import { type ChildProcess, spawn } from "node:child_process";
import { errorCode, errorMessage } from "@ambit/common/process/errors.ts";
import { inNetns, type NetnsHandle } from "@ambit/common/sys/netns.ts";
import { AgentError } from "../errors.ts";

/** These programs answer in milliseconds; one that hangs must not hold up other pods. */
const TIMEOUT_MS = 10_000;

/** A node's whole ruleset fits many times; more is not ours to read. */
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;

export interface CommandResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs to completion whatever its status. Rejects with command-missing or command-timed-out. */
export function runCommand(
  netns: NetnsHandle | undefined,
  [program, ...args]: readonly [string, ...string[]],
  input = "",
  env: Readonly<Record<string, string>> = {},
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    let child: ChildProcess;
    try {
      const options = { stdio: "pipe", env: { ...process.env, ...env } } as const;
      child = inNetns(netns?.fd, () => spawn(program, args, options));
    } catch (error) {
      const message = `cannot run ${program} in the pod's namespace: ${errorMessage(error)}`;
      return reject(new AgentError("command-failed", message, error));
    }
    const stdout = collect(child, "stdout");
    const stderr = collect(child, "stderr");
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      const seconds = TIMEOUT_MS / 1000;
      reject(new AgentError("command-timed-out", `${program} took over ${seconds} s`));
    }, TIMEOUT_MS);
    child.once("error", (error) => {
      clearTimeout(timer);
      reject(spawnFailure(program, error));
    });
    child.once("close", (status) => {
      clearTimeout(timer);
      resolve({ status: status ?? -1, stdout: stdout(), stderr: stderr() });
    });
    child.stdin!.on("error", () => {});
    child.stdin!.end(input);
  });
}

/** As runCommand, but any status other than 0 rejects with command-failed and what it printed. */
export async function runChecked(
  netns: NetnsHandle | undefined,
  command: readonly [string, ...string[]],
  input = "",
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const { status, stdout, stderr } = await runCommand(netns, command, input, env);
  if (status === 0) return stdout;
  const message = `${command.join(" ")} ended with ${status}: ${stderr.trim()}`;
  throw new AgentError("command-failed", message);
}

function spawnFailure(program: string, error: Error): AgentError {
  return errorCode(error) === "ENOENT"
    ? new AgentError("command-missing", `${program} is not installed: install it on the node`)
    : new AgentError("command-failed", `cannot run ${program}: ${error.message}`, error);
}

function collect(child: ChildProcess, stream: "stdout" | "stderr"): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  child[stream]!.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > OUTPUT_BYTES_MAX) child.kill("SIGKILL");
    else chunks.push(chunk);
  });
  return () => Buffer.concat(chunks).toString();
}
