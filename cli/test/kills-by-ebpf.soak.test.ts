// Redirection by eBPF while ztunnel, the node agent and both are killed at random moments under load: under
// STRICT nothing leaves an enrolled pod in plain text, nobody else answers, and all is soon as it was.
// ENDURANCE=1 kills fifty times.

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";
import { HOSTS, underLoad } from "./load/load.ts";
import { plaintextPackets, STRICT, watchForPlaintext } from "./plaintext.ts";
import { SHOP } from "./shop.ts";

const BLOWS = process.env["ENDURANCE"] === "1" ? 50 : 6;
const RECOVERY_MAX_MS = 2_000;
/** Two seconds where nothing else runs; many blows meet the worst moments of a machine that has other work. */
const BUSY_MACHINE = 5;
const LASTING_PER_HOST = 3;
const TEST_MAX_MS = 900_000;
const PAUSE_MAX_MS = 1_500;
/** Between two blows: programs that end sooner are taken for broken, and started later each time. */
const REST_MS = 5_500;
const VICTIMS = [
  ["ztunnel", ["ztunnel"]],
  ["cni-agent", ["cni-agent"]],
  ["both", ["ztunnel", "cni-agent"]],
] as const;

const SOON = { timeout: 30_000, interval: 100 };

const lab = new Lab();

beforeAll(async () => {
  await lab.up(SHOP + STRICT, "--redirection", "ebpf");
  await watchForPlaintext(lab);
});
afterAll(() => lab.down());

/** Ends a node's programs. Not those of two: nodes have processors of their own, which those of a lab share. */
async function blow(names: readonly string[]): Promise<void> {
  const { components } = await lab.status();
  const struck = Math.random() < 0.5 ? "node-1" : "node-2";
  for (const { name, node, pid } of components) {
    if (pid === undefined || !names.includes(name) || node !== struck) continue;
    if (existsSync(`/proc/${pid}`)) process.kill(pid, "SIGKILL");
  }
}

describe("redirection by eBPF", () => {
  it.each(VICTIMS)(
    `survives that %s ends at any moment`,
    { timeout: TEST_MAX_MS },
    async (name, names) => {
      const outcome = await underLoad(lab, { lasting: LASTING_PER_HOST }, async () => {
        for (let count = 0; count < Math.ceil(BLOWS / VICTIMS.length); count++) {
          await pause(Math.random() * PAUSE_MAX_MS);
          await blow(names);
          for (const host of HOSTS) {
            const reach = () => lab.reach("client.shop", `http://${host}/`);
            await expect.poll(reach, SOON).toBe("reached");
          }
          await pause(REST_MS);
        }
      });
      const gaps = HOSTS.map((host) => `${host} ${Math.round(outcome.gapMs[host]!)} ms`);
      console.log(`${name}: longest without an answer: ${gaps.join(", ")}`);
      expect(outcome.sent).toBeGreaterThan(100);
      expect(outcome.wrong).toBe(0);
      expect(await plaintextPackets(lab)).toEqual([0, 0]);
      for (const host of HOSTS) {
        expect(outcome.gapMs[host]).toBeLessThan(RECOVERY_MAX_MS * BUSY_MACHINE);
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
