// A local mesh of its own for acceptance tests, driven through `./ambit` exactly as a user would.

import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export const REPOSITORY = resolve(import.meta.dirname, "../..");
export const AMBIT = join(REPOSITORY, "ambit");
const COMMAND_TIMEOUT_MS = 120_000;
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

/** NODE=PATH of ztunnels that are not ours: `npm run interop` runs the suites with them. */
const PEERS = (process.env["PEER_ZTUNNELS"] ?? "").split(",").filter((peer) => peer !== "");

/** How traffic is redirected, for suites that say nothing of it themselves: one run for each way. */
const REDIRECTION = (process.env["TEST_REDIRECTION"] ?? "auto") as "auto" | "ebpf" | "nftables";

/** The same for how pods of one node reach each other. */
const SAME_NODE = process.env["TEST_SAME_NODE"] ?? "local";

/** Whether a node's ztunnel is ours: only ours explains itself. */
export function isOurs(node: string): boolean {
  return !PEERS.some((peer) => peer.startsWith(`${node}=`));
}

/** For `expect.poll`: what takes effect within a second, with room for a machine that is busy with more. */
export const SOON = { timeout: 5_000, interval: 50 };

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
  readonly pids: readonly number[];
  readonly ready: boolean;
  readonly mesh: string;
}

export interface StatusNode {
  readonly name: string;
  readonly netns: string;
  /** The fabric's end of the node's link. */
  readonly link: string;
  readonly redirection: { readonly backend: string; readonly reason?: string };
}

export interface StatusComponent {
  readonly name: string;
  readonly node?: string;
  readonly pid?: number;
  readonly state: string;
  readonly log: string;
}

export interface Status {
  readonly pid: number;
  readonly fabric: { readonly netns: string };
  readonly pods: readonly StatusPod[];
  readonly nodes: readonly StatusNode[];
  readonly components: readonly StatusComponent[];
}

export class Lab {
  readonly home = mkdtempSync(join(tmpdir(), "ambit-lab-"));
  readonly #files = mkdtempSync(join(tmpdir(), "ambit-lab-files-"));
  readonly #env: NodeJS.ProcessEnv;

  /** `settings` reach the programs of the mesh as environment variables. */
  constructor(settings: Readonly<Record<string, string>> = {}) {
    this.#env = { ...process.env, AMBIT_HOME: this.home, ...settings };
  }

  get env(): NodeJS.ProcessEnv {
    return this.#env;
  }

  /** Runs `./ambit ARGS`; never rejects. */
  ambit(...args: string[]): Promise<Outcome> {
    return this.run(AMBIT, args);
  }

  /** Runs any program with this mesh's environment; never rejects. */
  async run(program: string, args: readonly string[]): Promise<Outcome> {
    const { promise, resolve: done } = Promise.withResolvers<Outcome>();
    const options = {
      env: this.#env,
      timeout: COMMAND_TIMEOUT_MS,
      maxBuffer: OUTPUT_BYTES_MAX,
    };
    execFile(program, args, options, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : 1;
      done({ code, stdout, stderr });
    });
    return await promise;
  }

  /** The same, and throws what it printed when it fails. */
  async must(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.ambit(...args);
    if (code === 0) return stdout;
    throw new Error(`ambit ${args.join(" ")} ended with ${code}: ${stdout}${stderr}`);
  }

  /** Writes a manifest to a file of its own; returns its path. */
  file(name: string, text: string): string {
    const path = join(this.#files, name);
    writeFileSync(path, text);
    return path;
  }

  /** Writes a shell script that is found under `name`; returns its path. */
  program(name: string, script: string): string {
    const path = this.file(name, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
    return path;
  }

  async up(manifest: string, ...options: string[]): Promise<void> {
    const file = this.file("mesh.yaml", manifest);
    const peers = PEERS.flatMap((peer) => ["--ztunnel", peer]);
    const redirection = ["--redirection", REDIRECTION, "--same-node", SAME_NODE];
    await this.must("local", "up", "-f", file, "--detach", ...peers, ...redirection, ...options);
  }

  /** Applies `yaml`, awaits `body`, and deletes it again. */
  async whileApplied(yaml: string, body: () => Promise<void>): Promise<void> {
    const path = this.file("applied.yaml", yaml);
    await this.must("local", "apply", "-f", path);
    try {
      await body();
    } finally {
      await this.must("local", "delete", "-f", path);
    }
  }

  async down(): Promise<void> {
    await this.ambit("local", "down");
    rmSync(this.home, { recursive: true, force: true });
    rmSync(this.#files, { recursive: true, force: true });
  }

  /** Standard output of a command in a pod; "exit N" when it fails. */
  async exec(pod: string, ...command: string[]): Promise<string> {
    const { code, stdout } = await this.ambit("local", "exec", pod, "--", ...command);
    return code === 0 ? stdout.trim() : `exit ${code}`;
  }

  /** Starts a program in a pod, with pipes; it gets the signals that are sent to the child. */
  inPod(pod: string, command: readonly string[]): ChildProcess {
    const args = ["local", "exec", pod, "--", ...command];
    return spawn(AMBIT, args, { env: this.#env, stdio: ["pipe", "pipe", "inherit"] });
  }

  /** What curl in `pod` gets: the body, or "exit N". */
  get(pod: string, url: string): Promise<string> {
    return this.exec(pod, "curl", "-s", "-m", "5", url);
  }

  /** Whether the HTTP server at `url` answers a client in `pod`. */
  async reach(pod: string, url: string): Promise<"reached" | "refused"> {
    return (await this.get(pod, url)).includes("sees") ? "reached" : "refused";
  }

  async status(): Promise<Status> {
    return JSON.parse(await this.must("local", "status", "-o", "json")) as Status;
  }

  async pod(name: string): Promise<StatusPod> {
    const found = (await this.status()).pods.find((pod) => pod.name === name);
    if (found === undefined) throw new Error(`no pod ${name}`);
    return found;
  }

  async ipOf(pod: string): Promise<string> {
    return (await this.pod(pod)).ips[0]!;
  }

  async component(name: string, node?: string): Promise<StatusComponent> {
    const { components } = await this.status();
    const found = components.find((one) => one.name === name && one.node === node);
    if (found === undefined) throw new Error(`no component ${name} on ${node ?? "the fabric"}`);
    return found;
  }

  /** Access lines of a node's ztunnel. */
  async accessLines(node: string): Promise<string[]> {
    const text = await this.must("local", "logs", "ztunnel", "--node", node);
    return text.split("\n").filter((line) => line.includes("\taccess\t"));
  }
}

/** Network namespaces on this machine whose name begins so. */
export function namespaces(prefix: string): string[] {
  return execFileSync("ip", ["netns", "list"], { encoding: "utf8" })
    .split("\n")
    .map((line) => line.split(" ")[0]!)
    .filter((name) => name.startsWith(prefix));
}
