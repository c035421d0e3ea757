// Redirection by eBPF while ztunnel, the node agent and both are killed at random moments under load: under
// STRICT nothing leaves an enrolled pod in plain text, nobody else answers, and all is soon as it was.
// ENDURANCE=1 kills fifty times.

import type { ChildProcess } from "node:child_process";
import { execFileSync, spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AMBIT, Lab } from "./lab.ts";
import { SHOP } from "./shop.ts";

const BLOWS = process.env["ENDURANCE"] === "1" ? 50 : 6;
const RECOVERY_MAX_MS = 2_000;
/** Two seconds where nothing else runs; many blows meet the worst moments of a machine that has other work. */
const BUSY_MACHINE = 5;
const LOAD = join(import.meta.dirname, "load-client.ts");
const LOAD_MAX_S = 900;
const PAUSE_MAX_MS = 1_500;
/** Between two blows: programs that end sooner are taken for broken, and started later each time. */
const REST_MS = 5_500;
const VICTIMS = [
  ["ztunnel", ["ztunnel"]],
  ["cni-agent", ["cni-agent"]],
  ["both", ["ztunnel", "cni-agent"]],
] as const;

const SOON = { timeout: 30_000, interval: 100 };

const STRICT = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: STRICT } }
---`;

const TABLE = `
table inet plaintext {
  counter seen { }
  chain forward {
    type filter hook forward priority 0;
    tcp dport 15008 accept
    tcp sport 15008 accept
    ip saddr PODS ip daddr PODS meta l4proto tcp counter name seen
  }
}`;

interface Result {
  readonly sent: number;
  readonly wrong: number;
  readonly gapMs: Readonly<Record<string, number>>;
}

const lab = new Lab();
let netns: readonly string[];

beforeAll(async () => {
  await lab.up(SHOP + STRICT, "--redirection", "ebpf");
  netns = (await lab.status()).nodes.map((node) => node.netns);
  const ips = await Promise.all(["client", "near", "far"].map((name) => lab.ipOf(name)));
  const input = TABLE.replaceAll("PODS", `{ ${ips.join(", ")} }`);
  for (const each of netns)
    execFileSync("ip", ["netns", "exec", each, "nft", "-f", "-"], { input });
});
afterAll(() => lab.down());

function startLoad(): { child: ChildProcess; result: Promise<Result> } {
  const program = [process.execPath, LOAD, `${LOAD_MAX_S}`, "near", "far"];
  const args = ["local", "exec", "client.shop", "--", ...program];
  const child = spawn(AMBIT, args, { env: lab.env, stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
  const result = new Promise<Result>((resolve) => {
    child.on("close", () => resolve(JSON.parse(text) as Result));
  });
  return { child, result };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function blow(names: readonly string[]): Promise<void> {
  const { components } = await lab.status();
  const nodes = new Set(["node-1", "node-2"].filter(() => Math.random() < 0.7));
  for (const { name, node, pid } of components) {
    if (pid === undefined || !names.includes(name) || !nodes.has(node ?? "")) continue;
    if (existsSync(`/proc/${pid}`)) process.kill(pid, "SIGKILL");
  }
}

function plaintextPackets(): string[] {
  return netns.map((each) =>
    execFileSync(
      "ip",
      ["netns", "exec", each, "nft", "list", "counters", "table", "inet", "plaintext"],
      { encoding: "utf8" },
    ),
  );
}

describe("redirection by eBPF", () => {
  it.each(VICTIMS)(
    `survives that %s ends at any moment`,
    { timeout: LOAD_MAX_S * 1_000 },
    async (_name, names) => {
      const { child, result } = startLoad();
      for (let count = 0; count < Math.ceil(BLOWS / VICTIMS.length); count++) {
        await pause(Math.random() * PAUSE_MAX_MS);
        await blow(names);
        for (const host of ["near", "far"]) {
          const reach = () => lab.reach("client.shop", `http://${host}/`);
          await expect.poll(reach, SOON).toBe("reached");
        }
        await pause(REST_MS);
      }
      child.kill("SIGTERM");
      const { sent, wrong, gapMs } = await result;
      expect(sent).toBeGreaterThan(100);
      expect(wrong).toBe(0);
      for (const packets of plaintextPackets()) expect(packets).toContain("packets 0 bytes 0");
      for (const host of ["near", "far"]) {
        expect(gapMs[host]).toBeLessThan(RECOVERY_MAX_MS * BUSY_MACHINE);
      }
    },
  );

  it("has every program once, and a pin for every pod", () => {
    for (const node of ["node-1", "node-2"]) {
      const pins = (folder: string) => readdirSync(join(lab.home, "bpf/ambit", node, folder));
      expect(pins("links").length).toBeGreaterThanOrEqual(9);
      expect(pins("pods")).toHaveLength(node === "node-1" ? 2 : 1);
      expect(pins("proxies")).toHaveLength(1);
    }
  });
});
