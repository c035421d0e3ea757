// How the local mesh redirects: as asked for, told by status, and with nothing left in the kernel afterwards.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { findCgroup2 } from "@ambit/common/sys/cgroup.ts";
import { Lab } from "./lab.ts";
import { OrphanedMesh } from "./orphaned-mesh.ts";
import { SHOP } from "./shop.ts";

const SOON = { timeout: 20_000, interval: 50 };

let lab: Lab;
afterEach(() => lab.down());

/** What of this mesh is in the kernel besides namespaces: cgroups, and mounts of bpffs. */
function traces(): string[] {
  const prefix = `ambit.${createHash("sha256").update(lab.home).digest("hex").slice(0, 8)}-`;
  const cgroups = readdirSync(findCgroup2()!).filter((name) => name.startsWith(prefix));
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  return [...cgroups, ...mounts.filter((line) => line.includes(lab.home))];
}

const backends = async () =>
  (await lab.status()).nodes.map(({ redirection }) => redirection.backend);

describe.skipIf((process.env["PEER_ZTUNNELS"] ?? "") !== "")("the local mesh redirects", () => {
  it("by eBPF where it can, and leaves nothing of it", async () => {
    lab = new Lab();
    await lab.up(SHOP, "--redirection", "auto");
    expect(await backends()).toEqual(["ebpf", "ebpf"]);
    expect(traces()).toHaveLength(4);
    expect(await lab.must("local", "status")).toMatch(/node-1 .* ebpf /);
    expect(await lab.reach("client.shop", "http://far/")).toBe("reached");
    await lab.must("local", "down");
    expect(traces()).toEqual([]);
  });

  it("leaves nothing when everything is killed, either", async () => {
    lab = new Lab();
    await lab.up(SHOP, "--redirection", "ebpf");
    const { pid, components } = await lab.status();
    for (const each of [pid, ...components.map((component) => component.pid!)]) {
      process.kill(each, "SIGKILL");
    }
    expect(traces()).not.toEqual([]);
    await lab.must("local", "down");
    expect(traces()).toEqual([]);
  });

  it("by nftables when that is asked for, without a cgroup or a pin", async () => {
    lab = new Lab();
    await lab.up(SHOP, "--redirection", "nftables");
    expect(await backends()).toEqual(["nftables", "nftables"]);
    expect(traces()).toEqual([]);
    expect(existsSync(join(lab.home, "bpf"))).toBe(false);
  });

  it("fails calls at once when ztunnel hangs, and lets them through when it goes on", async () => {
    lab = new Lab();
    await lab.up(SHOP, "--redirection", "ebpf");
    const { pid } = await lab.component("ztunnel", "node-1");
    process.kill(pid!, "SIGSTOP");
    // One that ztunnel was given before anybody noticed waits in vain.
    const call = () => lab.exec("client.shop", "curl", "-sS", "-m", "2", "http://10.96.0.200/");
    try {
      // curl's code for a connection that could not be made.
      await expect.poll(call, { timeout: 40_000, interval: 100 }).toBe("exit 7");
    } finally {
      process.kill(pid!, "SIGCONT");
    }
    await expect.poll(() => lab.reach("client.shop", "http://far/"), SOON).toBe("reached");
  });
});

it("by eBPF does not go with a ztunnel that takes no such connections", async () => {
  lab = new Lab();
  const options = ["--redirection", "ebpf", "--ztunnel", "node-1=/bin/true"];
  const { code, stderr } = await lab.ambit("local", "up", ...options);
  expect(code).toBe(2);
  expect(stderr).toContain("the ztunnel of node-1 takes no connections by eBPF");
});

it("removes what an agent without a supervisor keeps, too", async () => {
  lab = new Lab();
  await lab.up(SHOP);
  const mesh = await OrphanedMesh.of(lab);
  await mesh.end(mesh.pid("cni-agent", "node-1"));
  await mesh.start("cni-agent", "node-1");
  await lab.must("local", "down");
  expect(traces()).toEqual([]);
});
