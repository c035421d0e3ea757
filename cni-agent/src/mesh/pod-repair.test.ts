import { beforeEach, describe, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { DELETION_PAUSE_MS, PodRepair, REPAIR_AFTER_MS, type RepairOptions } from "./pod-repair.ts";
import type { PodView } from "./pod-view.ts";

const OFF: RepairOptions = {
  deletePods: false,
  labelPods: false,
  labelKey: "cni.istio.io/uninitialized",
  labelValue: "true",
};
const LABEL = { ...OFF, labelPods: true };
const DELETE = { ...OFF, labelPods: true, deletePods: true };

let clock: FakeClock;
let done: string[];
let metrics: string[];
let nodeWorks: boolean;
let failing: Error | undefined;

beforeEach(() => {
  clock = new FakeClock();
  done = [];
  metrics = [];
  nodeWorks = true;
  failing = undefined;
});

function repair(options: RepairOptions): PodRepair {
  const act = (what: string) => {
    if (failing !== undefined) return Promise.reject(failing);
    done.push(what);
    return Promise.resolve();
  };
  return new PodRepair({
    options,
    clock,
    log: memoryLog().log.scope("pods"),
    nodeWorks: () => nodeWorks,
    onRepaired: ({ type, result }) => metrics.push(`${type} ${result}`),
    editor: {
      setLabel: ({ name }, key, value) => act(`${name}: ${key}=${value}`),
      delete: ({ name }) => act(`${name}: deleted`),
    },
  });
}

function pod(name: string, labels: Readonly<Record<string, string>> = {}): PodView {
  return {
    key: `shop/${name}`,
    uid: `uid-${name}`,
    name,
    namespace: "shop",
    serviceAccount: "sa",
    nodeName: "node-1",
    hostNetwork: false,
    terminal: false,
    deleting: false,
    ips: [],
    labels,
    annotations: {},
  };
}

describe("a pod that cannot be captured", () => {
  it("is tried again and nothing else unless more is asked for", async () => {
    const it = repair(OFF);
    await it.failed(pod("cart"), "netns-not-found");
    await clock.advance(REPAIR_AFTER_MS * 10);
    await it.failed(pod("cart"), "netns-not-found");
    expect(done).toEqual([]);
    await it.recovered(pod("cart"));
    await it.recovered(pod("cart"));
    expect(metrics).toEqual(["repair success"]);
  });

  it("is labelled after its time, once, and loses the label when it comes right", async () => {
    const it = repair(LABEL);
    await it.failed(pod("cart"), "capture-unproven");
    await clock.advance(REPAIR_AFTER_MS - 1);
    await it.failed(pod("cart"), "capture-unproven");
    expect(done).toEqual([]);
    await clock.advance(1);
    await it.failed(pod("cart"), "command-failed");
    expect(done).toEqual(["cart: cni.istio.io/uninitialized=true"]);
    const labelled = pod("cart", { "cni.istio.io/uninitialized": "true" });
    await it.failed(labelled, "command-failed");
    expect(done).toHaveLength(1);
    await it.recovered(labelled);
    expect(done.at(-1)).toBe("cart: cni.istio.io/uninitialized=undefined");
    expect(metrics).toEqual(["label success", "repair success"]);
  });

  it("is deleted after its time, one pod after the other", async () => {
    const it = repair(DELETE);
    for (const name of ["cart", "web"]) await it.failed(pod(name), "netns-not-found");
    await clock.advance(REPAIR_AFTER_MS);
    for (const name of ["cart", "web"]) await it.failed(pod(name), "netns-not-found");
    expect(done).toEqual(["cart: deleted"]);
    await clock.advance(DELETION_PAUSE_MS - 1);
    await it.failed(pod("web"), "netns-not-found");
    expect(done).toHaveLength(1);
    await clock.advance(1);
    await it.failed(pod("web"), "netns-not-found");
    expect(done).toEqual(["cart: deleted", "web: deleted"]);
    expect(metrics).toEqual(["delete success", "delete success"]);
  });

  it.each(["ztunnel-absent", "ztunnel-left", "ztunnel-timed-out", "internal"])(
    "by the node's fault (%s) is left alone",
    async (code) => {
      const it = repair(DELETE);
      await it.failed(pod("cart"), code);
      await clock.advance(REPAIR_AFTER_MS);
      await it.failed(pod("cart"), code);
      expect(done).toEqual([]);
    },
  );

  it("is left alone while no pod of the node can be, and has its time anew afterwards", async () => {
    const it = repair(DELETE);
    await it.failed(pod("cart"), "capture-unproven");
    await clock.advance(REPAIR_AFTER_MS);
    nodeWorks = false;
    await it.failed(pod("cart"), "capture-unproven");
    nodeWorks = true;
    await it.failed(pod("cart"), "capture-unproven");
    expect(done).toEqual([]);
  });

  it("says that it could not be helped, and does not end the agent", async () => {
    const it = repair(LABEL);
    failing = new Error("no such pod");
    await it.failed(pod("cart"), "bpf-failed");
    await clock.advance(REPAIR_AFTER_MS);
    await it.failed(pod("cart"), "bpf-failed");
    expect(metrics).toEqual(["label fail"]);
  });
});
