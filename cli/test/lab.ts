// A local mesh of its own for acceptance tests, driven through `./ambit` exactly as a user would.

import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export const REPOSITORY = resolve(import.meta.dirname, "../..");
const AMBIT = join(REPOSITORY, "ambit");
const COMMAND_TIMEOUT_MS = 60_000;

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface StatusPod {
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly netns: string;
  readonly ips: readonly string[];
  readonly ready: boolean;
  readonly mesh: string;
}

export class Lab {
  readonly home = mkdtempSync(join(tmpdir(), "ambit-lab-"));
  readonly #files = mkdtempSync(join(tmpdir(), "ambit-lab-files-"));

  /** Runs `./ambit ARGS`; never rejects. */
  ambit(...args: string[]): Promise<Outcome> {
    const env = { ...process.env, AMBIT_HOME: this.home };
    return new Promise((done) => {
      execFile(
        AMBIT,
        args,
        { env, timeout: COMMAND_TIMEOUT_MS, encoding: "utf8" },
        (error, stdout, stderr) => {
          const code = error === null ? 0 : typeof error.code === "number" ? error.code : 1;
          done({ code, stdout, stderr });
        },
      );
    });
  }

  /** The same, and throws what it printed when it fails. */
  async must(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.ambit(...args);
    if (code !== 0)
      throw new Error(`ambit ${args.join(" ")} ended with ${code}: ${stdout}${stderr}`);
    return stdout;
  }

  /** Writes a manifest to a file of its own; returns its path. */
  file(name: string, text: string): string {
    const path = join(this.#files, name);
    writeFileSync(path, text);
    return path;
  }

  async up(manifest: string): Promise<void> {
    await this.must("local", "up", "-f", this.file("mesh.yaml", manifest), "--detach");
  }

  async down(): Promise<void> {
    await this.ambit("local", "down");
    rmSync(this.home, { recursive: true, force: true });
    rmSync(this.#files, { recursive: true, force: true });
  }

  /** Standard output of a command in a pod; the exit code when it fails. */
  async exec(pod: string, ...command: string[]): Promise<string> {
    const { code, stdout } = await this.ambit("local", "exec", pod, "--", ...command);
    return code === 0 ? stdout.trim() : `exit ${code}`;
  }

  /** What curl in `pod` gets: the body, or "exit N". */
  get(pod: string, url: string): Promise<string> {
    return this.exec(pod, "curl", "-s", "-m", "5", url);
  }

  async pods(): Promise<StatusPod[]> {
    const status = JSON.parse(await this.must("local", "status", "-o", "json")) as {
      pods: StatusPod[];
    };
    return status.pods;
  }

  async pod(name: string): Promise<StatusPod> {
    const found = (await this.pods()).find((pod) => pod.name === name);
    if (found === undefined) throw new Error(`no pod ${name}`);
    return found;
  }

  /** Access lines of a node's ztunnel. */
  async accessLines(node: string): Promise<string[]> {
    const text = await this.must("local", "logs", "ztunnel", "--node", node);
    return text.split("\n").filter((line) => line.includes("\taccess\t"));
  }
}

/** Network namespaces on this machine. */
export function namespaces(): string[] {
  return execFileSync("ip", ["netns", "list"], { encoding: "utf8" })
    .split("\n")
    .map((line) => line.split(" ")[0]!)
    .filter((name) => name !== "");
}
