// What becomes of a node that cannot redirect by eBPF, or whose ztunnel cannot take it: another way, and the
// reason where people look for it.

import { create, toBinary } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Version, ZdsHelloSchema } from "@ambit/api/gen/istio/zds_pb.ts";
import type { Node } from "@ambit/api/resources/kinds.ts";
import { CONSTANTS } from "@ambit/common/sys/bpf-layout.gen.ts";
import { AgentLab } from "../testing/agent-lab.ts";
import { createTestCgroups, type TestCgroups } from "../testing/test-cgroups.ts";

const KEY = { kind: "Node", namespace: "", name: "node-1" } as const;

let lab: AgentLab;
let cgroups: TestCgroups;

beforeEach(async () => {
  cgroups = createTestCgroups();
  lab = await AgentLab.create();
  await lab.store.put({ apiVersion: "v1", kind: "Node", metadata: { name: "node-1" } });
});
afterEach(async () => {
  await lab.remove();
  cgroups.remove();
});

const hello = (steeringLayout: number) =>
  toBinary(
    ZdsHelloSchema,
    create(ZdsHelloSchema, { version: Version.V1, answersCaptureProbes: true, steeringLayout }),
  );

const settings = (redirection: string, cgroup = cgroups.node) => ({
  REDIRECTION: redirection,
  NODE_CGROUP: cgroup,
  BPF_FS: cgroups.bpffs,
});

const condition = () => {
  const node: Node | undefined = lab.store.get(KEY);
  return node?.status?.conditions?.find(({ type }) => type === "ambit.io/Redirection");
};
const lines = (text: string) => lab.lines.filter((line) => line.includes(text));

it("says how pods are captured, in a line, a metric and the node's condition", async () => {
  await lab.startAgent(settings("auto"));
  await expect.poll(condition).toMatchObject({ status: "True", reason: "Ebpf", message: "" });
  expect(lines("pods are captured")).toHaveLength(1);
  const metrics = await lab.metrics();
  expect(metrics).toContain('ambit_cni_redirection{backend="ebpf"} 1');
  expect(metrics).not.toContain("ambit_cni_redirection_fallback{");
  expect(metrics).toContain('ambit_bpf_events_total{event="captured"} 2');
});

describe("a node that cannot redirect by eBPF", () => {
  const message = expect.stringMatching(/^not by eBPF \(cgroup\): the agent runs in .* outside/);

  it("redirects by nftables and says why, once", async () => {
    await lab.setMode("ambient");
    await lab.startAgent(settings("auto", cgroups.ztunnel));
    lab.startZtunnel();
    await lab.untilRedirection("enabled");
    expect(await lab.rules()).toBe("ok");
    expect(lines("pods are captured, not by eBPF")).toHaveLength(1);
    expect(condition()).toMatchObject({ status: "True", reason: "Nftables", message });
    const metrics = await lab.metrics();
    expect(metrics).toContain('ambit_cni_redirection{backend="nftables"} 1');
    expect(metrics).toContain('ambit_cni_redirection_fallback{check="cgroup"} 1');
  });

  it("does not start when eBPF is demanded, and says what is missing", async () => {
    await expect(lab.startAgent(settings("ebpf", cgroups.ztunnel))).rejects.toThrow(
      /^REDIRECTION=ebpf, but this node cannot \(cgroup\): the agent runs in .*auto takes the best/,
    );
  });
});

describe("a ztunnel that cannot take what eBPF captures", () => {
  it.each([
    ["Istio's", 0, /connections at fixed ports only/],
    ["one of another version", CONSTANTS.LAYOUT_VERSION + 1, /knows layout \d+ of the maps, not/],
    ["one in the agent's own cgroup", CONSTANTS.LAYOUT_VERSION, /which holds the agent too/],
  ])("%s is served by nftables, with the reason", async (_name, layout, reason) => {
    await lab.setMode("ambient");
    await lab.startAgent(settings("auto"));
    const ztunnel = lab.startZtunnel({ hello: hello(layout) });
    await lab.untilRedirection("enabled");
    expect(await lab.rules()).toBe("ok");
    expect(ztunnel.closedBecause).toBeUndefined();
    expect(condition()).toMatchObject({
      reason: "Nftables",
      message: expect.stringMatching(reason),
    });
    expect(await lab.metrics()).toContain('ambit_cni_redirection_fallback{check="ztunnel"} 1');
  });

  it("serves nobody when eBPF is demanded, and the node says so", async () => {
    await lab.setMode("ambient");
    await lab.startAgent(settings("ebpf"));
    lab.startZtunnel({ hello: hello(0) });
    await lab.untilCapture(/^unproven/);
    expect(lab.redirection).toBe("pending");
    await expect.poll(condition).toMatchObject({
      status: "False",
      message: expect.stringMatching(/^nothing can be captured by eBPF \(ztunnel\)/),
    });
  });
});

it("pods that another agent redirected by eBPF are taken over by nftables where that is set", async () => {
  await lab.setMode("ambient");
  await lab.startAgent(settings("ebpf"));
  await lab.untilCapture(/^unproven/);
  await lab.app.stop();
  await lab.startAgent(settings("nftables"));
  lab.startZtunnel();
  await lab.untilRedirection("enabled");
  expect(await lab.rules()).toBe("ok");
  expect(condition()).toMatchObject({ reason: "Nftables", message: "" });
});
