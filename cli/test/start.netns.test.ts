import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { AMBIT, Lab, namespaces, REPOSITORY } from "./lab.ts";
import { SHOP } from "./shop.ts";

const STARTED = { timeout: 60_000, interval: 100 };

let lab: Lab;
let running: ChildProcess | undefined;

afterEach(async () => {
  if (running?.exitCode === null && running.signalCode === null) signalGroup(running, "SIGKILL");
  await lab.down();
});

/** `npm start` as a user types it, in a process group of its own like a terminal's. */
function npmStart(): { child: ChildProcess; text: () => string } {
  let text = "";
  const child = spawn("npm", ["start"], {
    cwd: REPOSITORY,
    env: lab.env,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (text += chunk.toString()));
  running = child;
  return { child, text: () => text };
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  process.kill(-child.pid!, signal);
}

/** Everything of the mesh that the kernel or the process table still knows. */
function leftovers(prefix: string): string[] {
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  return [
    ...namespaces(prefix),
    ...mounts.filter((line) => line.includes(prefix) || line.includes(lab.home)),
    ...processes().filter((command) => command.includes(lab.home) || command.includes(prefix)),
  ];
}

/** Command line and environment of every process. */
function processes(): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((pid) => {
      try {
        return ["cmdline", "environ"].map((file) => readFileSync(`/proc/${pid}/${file}`)).join(" ");
      } catch {
        return "";
      }
    });
}

async function prefixOf(): Promise<string> {
  const { fabric } = await lab.status();
  return fabric.netns.replace(/-fabric$/, "");
}

describe("npm start", () => {
  it("tells what it does and who talks to whom; Ctrl-C leaves nothing", async () => {
    lab = new Lab();
    const { child, text } = npmStart();
    await expect.poll(text, STARTED).toMatch(/who talks to whom/);
    const identity = (account: string) => `bookshop/${account}`;
    for (const account of ["page", "reviews", "ratings", "visitor"])
      await expect.poll(text, STARTED).toContain(identity(account));
    await expect.poll(text, STARTED).toMatch(/visitor.*(→|->).*page/);
    expect(await lab.exec("visitor.bookshop", "curl", "-s", "page:8080")).toMatch(/reviews v\d/);
    const prefix = await prefixOf();
    expect(leftovers(prefix).length).toBeGreaterThan(10);
    signalGroup(child, "SIGINT");
    await once(child, "close");
    expect(text()).toMatch(/nothing is left/);
    expect(leftovers(prefix)).toEqual([]);
  });

  it("recovers from kill -9, and down removes what a killed one left", async () => {
    lab = new Lab();
    const first = npmStart();
    await expect.poll(first.text, STARTED).toMatch(/who talks to whom/);
    const prefix = await prefixOf();
    process.kill((await lab.status()).pid, "SIGKILL");
    signalGroup(first.child, "SIGKILL");
    await once(first.child, "close");
    expect(namespaces(prefix).length).toBeGreaterThan(3);

    const second = npmStart();
    await expect.poll(second.text, STARTED).toMatch(/removed what an earlier run left/);
    await expect.poll(second.text, STARTED).toMatch(/who talks to whom/);
    expect(await lab.exec("visitor.bookshop", "curl", "-s", "page:8080")).toMatch(/reviews v\d/);
    process.kill((await lab.status()).pid, "SIGKILL");
    signalGroup(second.child, "SIGKILL");
    await once(second.child, "close");

    await lab.must("local", "down");
    expect(leftovers(prefix)).toEqual([]);
  });
});

describe("ambit local up", () => {
  it("takes manifests from standard input, in the background too", async () => {
    lab = new Lab();
    const file = lab.file("shop.yaml", SHOP);
    const { stderr } = await lab.run("sh", ["-c", `${AMBIT} local up -f - --detach < ${file}`]);
    expect(stderr).toBe("");
    const names = (await lab.status()).pods.map(({ name }) => name).sort();
    expect(names).toEqual(["client", "far", "legacy", "near", "optout"]);
  });
});
