// Upgrades under load, as a user's pods meet them: another ztunnel takes over, another node agent does, and
// a node changes the way in which it redirects. No request fails, and no connection is cut.

import { execFileSync } from "node:child_process";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";
import { type Outcome, underLoad } from "./load/load.ts";
import { OrphanedMesh } from "./orphaned-mesh.ts";
import { SHOP } from "./shop.ts";

const LASTING_PER_HOST = 3;
/** Load after what happens. */
const MARGIN_MS = 1_500;
const SOON = { timeout: 20_000, interval: 50 };
/** Applications that last are given a minute, and more than they need, to end by themselves. */
const PATIENT = { CONNECTION_TERMINATION_DEADLINE: "90s" };
/** Workers share their ports, which is one thing more to be handed over. */
const WORKERS = { ZTUNNEL_WORKER_THREADS: "2" };

const lab = new Lab({ ...PATIENT, ...WORKERS });
let mesh: OrphanedMesh;

beforeAll(async () => {
  await lab.up(SHOP);
  mesh = await OrphanedMesh.of(lab);
});
afterAll(async () => {
  await mesh.endAll();
  await lab.down();
});

function whileUsed(action: () => Promise<void>): Promise<Outcome> {
  return underLoad(mesh, { lasting: LASTING_PER_HOST }, async () => {
    await action();
    await pause(MARGIN_MS);
  });
}

function expectNothingLost({ sent, failures, wrong, talks, cuts }: Outcome): void {
  expect({ failures, cuts, wrong }).toEqual({ failures: [], cuts: [], wrong: 0 });
  expect(Math.min(sent, talks)).toBeGreaterThan(50);
}

const backend = (node: string) => {
  const object = mesh.store.get({ kind: "Node", namespace: "", name: node });
  const conditions = object?.kind === "Node" ? (object.status?.conditions ?? []) : [];
  return conditions.find(({ type }) => type === "ambit.io/Redirection")?.reason;
};

const tables = (pod: string) =>
  execFileSync("ip", ["netns", "exec", mesh.netns(pod), "nft", "list", "ruleset"], {
    encoding: "utf8",
    // It warns of every table that iptables made.
    stdio: ["ignore", "pipe", "ignore"],
  });

describe("another ztunnel on a node takes over", () => {
  it.each([["node-1"], ["node-2"]])(
    "%s, and nothing is lost while the old one drains",
    async (node) => {
      let old = mesh.pid("ztunnel", node);
      const result = await whileUsed(async () => {
        await mesh.start("ztunnel", node);
        process.kill(old, "SIGTERM");
        await pause(3_000);
      });
      expectNothingLost(result);
      await mesh.end(old, "SIGKILL");
    },
  );
});

describe("another node agent", () => {
  it.each([["node-1"], ["node-2"]])("on %s is not noticed", async (node) => {
    const result = await whileUsed(async () => {
      await mesh.end(mesh.pid("cni-agent", node));
      await mesh.start("cni-agent", node);
    });
    expectNothingLost(result);
  });
});

describe("a node's redirection changes", () => {
  const change = (node: string, redirection: string, reason: string) =>
    whileUsed(async () => {
      await mesh.end(mesh.pid("cni-agent", node));
      await mesh.start("cni-agent", node, { REDIRECTION: redirection });
      await expect.poll(() => backend(node), SOON).toBe(reason);
      for (const pod of node === "node-1" ? ["client", "near"] : ["far"]) {
        const translates = () => tables(pod).includes("redirect to :15001");
        await expect.poll(translates, SOON).toBe(reason !== "Ebpf");
      }
    });

  it.each([
    ["node-1", "nftables", "Nftables"],
    ["node-2", "nftables", "Nftables"],
    ["node-1", "ebpf", "Ebpf"],
    ["node-2", "auto", "Ebpf"],
    ["node-2", "iptables", "Iptables"],
    ["node-2", "auto", "Ebpf"],
  ])("of %s to %s, without a cut", async (node, redirection, reason) => {
    expectNothingLost(await change(node, redirection, reason));
  });

  it("and leaves nothing of the former way behind once its connections have ended", async () => {
    await mesh.end(mesh.pid("cni-agent", "node-1"));
    await mesh.start("cni-agent", "node-1", { CAPTURE_AUDIT_INTERVAL: "200ms" });
    await expect.poll(() => tables("client"), SOON).toBe("");
  });
});
