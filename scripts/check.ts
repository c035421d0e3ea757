// `npm run check`: format, lint, types, tidiness and generated-code drift, in that order, all of them
// even when an earlier one fails, so that one run shows everything there is to mend.

import { spawnSync } from "node:child_process";
import { tidy } from "./tidy.ts";

interface Step {
  readonly name: string;
  readonly run: () => boolean;
}

const command =
  (file: string, ...args: string[]) =>
  (): boolean =>
    spawnSync(file, args, { stdio: "inherit" }).status === 0;

const STEPS: readonly Step[] = [
  { name: "format", run: command("npx", "--no-install", "oxfmt", "--check", ".") },
  { name: "lint", run: command("npx", "--no-install", "oxlint") },
  { name: "types", run: command("npx", "--no-install", "tsc", "-p", ".") },
  { name: "tidy", run: reportTidy },
  { name: "generated", run: command("node", "scripts/generate.ts", "--check") },
];

function reportTidy(): boolean {
  const problems = tidy(process.cwd());
  for (const { file, line, message } of problems) console.error(`${file}:${line}: ${message}`);
  return problems.length === 0;
}

const failed = STEPS.filter(({ name, run }) => {
  console.log(`check: ${name}`);
  return !run();
});
if (failed.length > 0) {
  console.error(`check failed: ${failed.map(({ name }) => name).join(", ")}`);
  process.exitCode = 1;
}
