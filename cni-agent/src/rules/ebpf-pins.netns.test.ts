// What the kernel keeps by its pins alone: over restarts, without them, and with maps of another layout.

import { readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { mapFolder } from "@ambit/common/sys/bpf-steering.ts";
import { connectApp } from "../testing/app-socket.ts";
import { ALL, type EbpfHarness, ebpfHarness } from "../testing/redirection-harness.ts";
import { OUTSIDE, talk, type TestServer } from "../testing/test-network.ts";
import { EbpfBackend } from "./ebpf-backend.ts";
import { EbpfNode } from "./ebpf-node.ts";

const RESTARTS = 10;

let harness: EbpfHarness;
beforeEach(() => {
  harness = ebpfHarness();
});
afterEach(() => harness.close());

function successor(): EbpfNode {
  const { cgroups, pins, network } = harness;
  const node = new EbpfNode({ cgroup: cgroups.node, pins, hostNetns: network.node.netns });
  node.attach();
  return node;
}

const backendOf = (node: EbpfNode) => new EbpfBackend(node, harness.backend, harness.kubelet);

/** A new connection is captured, by one program. */
async function expectCapture(ztunnel: TestServer, node = harness.node): Promise<void> {
  const captured = () => node.steering.counters().get("CAPTURED")!;
  const before = captured();
  const app = connectApp(harness.network.pod, OUTSIDE.ip4, 80);
  await talk(app, await ztunnel.next());
  expect(captured()).toBe(before + 1);
  app.destroy();
}

it("ten restarts leave every program once, and every pin", async () => {
  await harness.install();
  await using ztunnel = await harness.listen("OUTBOUND");
  const pins = () => new Set(readdirSync(harness.pins, { recursive: true, encoding: "utf8" }));
  const before = pins();
  for (let restart = 0; restart < RESTARTS; restart++) {
    using node = successor();
    await backendOf(node).install(harness.network.pod.netns, ALL);
  }
  expect(pins()).toEqual(before);
  await expectCapture(ztunnel);
});

describe("pins that somebody removed", () => {
  it.each([
    ["the programs'", ["links"]],
    ["ztunnel's", ["proxies"]],
    ["the pods'", ["pods"]],
    ["the maps'", ["maps-v*"]],
    ["all, folders too,", ["*"]],
  ])("%s are found missing and put back; what is connected stays", async (_whose, [pattern]) => {
    const { install, network, backend, pins } = harness;
    await install();
    await using ztunnel = await harness.listen("OUTBOUND");
    const app = connectApp(network.pod, OUTSIDE.ip4, 80);
    const captured = await ztunnel.next();
    network.sh(`rm -r ${join(pins, pattern!)}`);
    expect(await backend.verify(network.pod.netns, ALL)).toBe("drifted");
    await install();
    expect(await backend.verify(network.pod.netns, ALL)).toBe("ok");
    await talk(app, captured);
    await expectCapture(ztunnel);
    app.destroy();
  });

  it("while no agent was there are made anew by the next", async () => {
    const { install, network, pins } = harness;
    await install();
    await using ztunnel = await harness.listen("OUTBOUND");
    rmSync(pins, { recursive: true });
    using node = successor();
    const backend = backendOf(node);
    expect(await backend.verify(network.pod.netns, ALL)).toBe("drifted");
    await backend.install(network.pod.netns, ALL);
    node.steering.setListener(backend.slotOf(network.pod.netns)!, "OUTBOUND", ztunnel.fd);
    await expectCapture(ztunnel, node);
  });
});

it("maps of another layout are left to what is connected; the pods are never let out, and served anew", async () => {
  const { install, network, pins } = harness;
  await install();
  await using ztunnel = await harness.listen("OUTBOUND");
  const app = connectApp(network.pod, OUTSIDE.ip4, 80);
  const captured = await ztunnel.next();
  renameSync(mapFolder(pins), join(pins, "maps-v0"));
  using node = successor();
  const backend = backendOf(node);
  await talk(app, captured);
  expect(() => connectApp(network.pod, OUTSIDE.ip4, 80)).toThrow("EPERM");
  expect(await backend.verify(network.pod.netns, ALL)).toBe("drifted");
  await backend.install(network.pod.netns, ALL);
  node.steering.setListener(backend.slotOf(network.pod.netns)!, "OUTBOUND", ztunnel.fd);
  await expectCapture(ztunnel, node);
  await talk(app, captured);
  expect(readdirSync(pins)).not.toContain("maps-v0");
  app.destroy();
});
