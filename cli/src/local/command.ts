// Running the few system programs the local runtime needs: ip and nft. Short-lived, output bounded.

import { execFile } from "node:child_process";

/** More than any ruleset or listing of a machine-sized mesh. */
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;
const TIMEOUT_MS = 30_000;

/** Runs a program, feeding `input`. Resolves to its output; rejects with what it printed on failure. */
export function runCommand(
  file: string,
  args: readonly string[],
  input: string = "",
): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { maxBuffer: OUTPUT_BYTES_MAX, timeout: TIMEOUT_MS };
    const child = execFile(file, args, options, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const detail = stderr.trim() || error.message;
      reject(new Error(`${file} ${args.join(" ")}: ${detail}`, { cause: error }));
    });
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(input);
  });
}

/** `ip` commands, one per line, in a namespace; stops at the first that fails. */
export async function ipBatch(netns: string, lines: readonly string[]): Promise<void> {
  await runCommand("ip", ["-n", netns, "-batch", "-"], `${lines.join("\n")}\n`);
}

/** Loads an nftables script in a namespace as one transaction. */
export async function nftLoad(netns: string, script: string): Promise<void> {
  const args = [`--net=/run/netns/${netns}`, "nft", "-f", "-"];
  await runCommand("nsenter", args, script);
}
