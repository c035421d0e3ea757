// Many pods that come and go: nothing of them is left, in the kernel or in the agent, and each is captured
// within a bounded time. ENDURANCE=1 does as many as a node sees in months.

import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { basename } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { createNetns, inNetns, type NetnsHandle } from "@ambit/common/sys/netns.ts";
import { listenTcp } from "@ambit/common/sys/sockets.ts";
import {
  ALL,
  type EbpfHarness,
  ebpfHarness,
  openShortcut,
} from "../testing/redirection-harness.ts";
import { ip } from "../testing/test-network.ts";
import { NftablesBackend } from "./nftables-backend.ts";
import { SwitchingBackend } from "./switching-backend.ts";

const LONG = process.env["ENDURANCE"] === "1";
const CYCLES = LONG ? 1_000 : 50;
const PODS = LONG ? 200 : 40;
/** On a machine that does nothing else; others' tests may run beside this one. */
const ENROL_MAX_MS = 50;
const BUSY_MACHINE = 3;

let harness: EbpfHarness;
let backend: SwitchingBackend;
beforeAll(() => {
  harness = ebpfHarness();
  const hostNetns = harness.network.node.netns;
  const translating = new NftablesBackend({ hostNetns, probeUid: undefined });
  backend = new SwitchingBackend({ translating, ebpf: harness.backend });
});
afterAll(() => harness.close());

/** Namespaces go after their last descriptor, and their links' other ends with them: no name is used again. */
let made = 0;

function makePod(): NetnsHandle {
  const number = ++made;
  const netns = createNetns();
  const address = `10.200.${number >> 8}.${number & 255}/32`;
  const node = basename(harness.network.node.path);
  const input = `
    link set lo up
    link add eth0 type veth peer name p${number} netns ${node}
    link set eth0 up
    addr add ${address} dev eth0
    addr add fd77:9::${number}/128 dev eth0 nodad
`;
  inNetns(netns.fd, () => execFileSync("ip", ["-batch", "-"], { input }));
  execFileSync("ip", ["-n", node, "link", "set", `p${number}`, "up"]);
  return netns;
}

/** As the agent does it: rules, ztunnel's listeners, and what waits for them. */
async function enrol(netns: NetnsHandle): Promise<{ listeners: number[]; ms: number }> {
  const startMs = performance.now();
  await backend.install(netns, ALL);
  const slot = backend.slotOf(netns, ALL)!;
  const address = { ip: ip("::"), port: 0 };
  const listeners = (["OUTBOUND", "PLAINTEXT", "HBONE", "DNS"] as const).map((role) => {
    const fd = listenTcp(netns.fd, { address, transparent: "required" });
    harness.node.steering.setListener(slot, role, fd);
    return fd;
  });
  await backend.settle(netns, ALL);
  const ms = performance.now() - startMs;
  await openShortcut(harness, netns);
  return { listeners, ms };
}

async function leave(netns: NetnsHandle, listeners: readonly number[]): Promise<void> {
  listeners.forEach(closeFd);
  await backend.remove(netns);
}

/** What the agent and the kernel hold for pods. */
function holdings() {
  const { steering, pins } = harness.node;
  const slots = Array.from({ length: PODS }, (_, slot) => slot);
  return {
    descriptors: readdirSync("/proc/self/fd").length,
    pods: steering.pods().size,
    pins: pins.names("pods").length,
    shortcuts: pins.names("shortcuts").length,
    slots: slots.filter((slot) => steering.slot(slot) !== undefined).length,
    addresses: slots.flatMap((slot) => steering.addresses(slot)).length,
    listeners: slots.filter((slot) => steering.listener(slot, "OUTBOUND") !== undefined).length,
    passes: steering.passCount,
  };
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}

describe("pods that come and go", () => {
  it(`leave nothing behind after ${CYCLES} times`, { timeout: 600_000 }, async () => {
    using netns = makePod();
    await leave(netns, (await enrol(netns)).listeners);
    backend.collectGarbage();
    const before = holdings();
    const memoryBytes = process.memoryUsage.rss();
    const times: number[] = [];
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      const { listeners, ms } = await enrol(netns);
      times.push(ms);
      await leave(netns, listeners);
    }
    backend.collectGarbage();
    expect(holdings()).toEqual(before);
    expect(process.memoryUsage.rss() - memoryBytes).toBeLessThan(64 * 2 ** 20);
    expect(median(times)).toBeLessThan(ENROL_MAX_MS * BUSY_MACHINE);
  });

  it(`are ${PODS} at once, each in its own slot`, { timeout: 600_000 }, async () => {
    const before = holdings();
    const pods = Array.from({ length: PODS }, () => makePod());
    const enrolled = [];
    for (const pod of pods) enrolled.push(await enrol(pod));
    expect(holdings()).toMatchObject({
      pods: PODS,
      pins: PODS,
      shortcuts: before.shortcuts + PODS,
      slots: PODS,
      listeners: PODS,
    });
    expect(new Set(pods.map((pod) => backend.slotOf(pod, ALL))).size).toBe(PODS);
    const times = enrolled.map(({ ms }) => ms);
    expect(median(times)).toBeLessThan(ENROL_MAX_MS * BUSY_MACHINE);
    for (const [index, pod] of pods.entries()) await leave(pod, enrolled[index]!.listeners);
    backend.collectGarbage();
    for (const pod of pods) pod.close();
    expect(holdings()).toEqual(before);
  });

  it("are forgotten with their namespaces", async () => {
    const before = holdings();
    const pod = makePod();
    const { listeners } = await enrol(pod);
    listeners.forEach(closeFd);
    backend.forget(pod);
    pod.close();
    await expect.poll(holdings).toEqual(before);
  });
});
