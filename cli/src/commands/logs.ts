// `ambit local logs`: prints a log file, and goes on as it grows when asked.

import { setTimeout as delay } from "node:timers/promises";
import { UserError } from "@ambit/common/process/errors.ts";
import { findPod } from "../local/find-pod.ts";
import { LineReader } from "../local/follow.ts";
import { type Home, supervisorLog } from "../local/home.ts";
import { readRunFile, requireRunning } from "../local/run-file.ts";

const FOLLOW_POLL_MS = 200;

export interface LogOptions {
  readonly node?: string;
  readonly follow?: boolean;
  readonly container?: string;
}

export async function showLogs(home: Home, component: string, options: LogOptions): Promise<void> {
  const files = findLogs(home, component, options);
  const readers = files.map(({ name, path }) => ({ name, reader: new LineReader(path) }));
  for (;;) {
    for (const { name, reader } of readers) {
      for (const line of reader.read()) {
        process.stdout.write(readers.length > 1 ? `${name} | ${line}\n` : `${line}\n`);
      }
    }
    if (options.follow !== true) return;
    await delay(FOLLOW_POLL_MS);
  }
}

interface LogFile {
  readonly name: string;
  readonly path: string;
}

/** The files that a name stands for; several when a program runs on every node. */
function findLogs(home: Home, component: string, { node, container }: LogOptions): LogFile[] {
  if (component === "supervisor") {
    return [{ name: component, path: supervisorLog(home) }];
  }
  const run = readRunFile(home) ?? requireRunning(home);
  const programs = run.components.filter(({ name }) => name === component);
  if (programs.length > 0) {
    const found = programs.filter((program) => node === undefined || program.node === node);
    if (found.length > 0)
      return found.map(({ node: at, log }) => ({ name: at ?? component, path: log }));
    const nodes = programs.map((program) => program.node).join(", ");
    throw new UserError(`${component} does not run on "${node}": it runs on ${nodes}`);
  }
  const { logs, name } = findPod(run.pods, component);
  const files = Object.entries(logs).filter(
    ([each]) => container === undefined || each === container,
  );
  if (files.length > 0) return files.map(([each, path]) => ({ name: each, path }));
  throw new UserError(
    `pod ${name} has no container "${container}": it has ${Object.keys(logs).join(", ")}`,
  );
}
