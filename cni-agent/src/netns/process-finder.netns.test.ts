import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Ip } from "@ambit/common/net/ip.ts";
import { sameNetns } from "@ambit/common/sys/netns.ts";
import type { PodView } from "../mesh/pod-view.ts";
import { createTestNetwork, type TestNetwork } from "../testing/test-network.ts";
import { AnnotationFinder } from "./annotation-finder.ts";
import { podUidOfCgroup, ProcessFinder, startTicksOfStat } from "./process-finder.ts";

const UID = "0a1b2c3d-1111-2222-3333-444455556666";

let network: TestNetwork;
let proc: string;

beforeAll(() => {
  network = createTestNetwork();
});
afterAll(() => {
  network.remove();
  rmSync(proc, { recursive: true });
});
beforeEach(() => {
  if (proc) rmSync(proc, { recursive: true });
  proc = mkdtempSync(join(tmpdir(), "ambit-proc-"));
  addProcess(1, "/proc/self/ns/net", "0::/init.scope", 1);
});

function addProcess(pid: number, netnsPath: string, cgroup: string, startTicks: number): void {
  mkdirSync(join(proc, String(pid), "ns"), { recursive: true });
  symlinkSync(netnsPath, join(proc, String(pid), "ns/net"));
  writeFileSync(join(proc, String(pid), "cgroup"), `${cgroup}\n`);
  const before = Array.from({ length: 19 }, () => "0").join(" ");
  writeFileSync(join(proc, String(pid), "stat"), `${pid} (a) b) ${before} ${startTicks} 0 0\n`);
}

function pod(ips: readonly Ip[], annotations: Record<string, string> = {}): PodView {
  const rest = { hostNetwork: false, terminal: false, deleting: false, nodeName: "n", labels: {} };
  return {
    key: "n/p",
    uid: UID,
    name: "p",
    namespace: "n",
    serviceAccount: "s",
    ips,
    annotations,
    ...rest,
  };
}

const CGROUP = `0::/kubepods.slice/kubepods-pod${UID.replaceAll("-", "_")}.slice/cri-1.scope`;

describe("process finder", () => {
  it("finds the namespace of the pod's process that owns the pod's address", () => {
    addProcess(70, network.pod.path, CGROUP, 500);
    addProcess(71, network.other.path, "0::/kubepods/podffffffff-1111-2222-3333-444455556666", 1);
    using found = new ProcessFinder(proc).find(pod([network.pod.ip4]))!;
    expect(sameNetns(found, network.pod.netns)).toBe(true);
  });

  it("is not misled by an older process passing through, or one in the node's namespace", () => {
    addProcess(60, network.other.path, CGROUP, 100);
    addProcess(61, "/proc/self/ns/net", CGROUP, 50);
    addProcess(70, network.pod.path, CGROUP, 500);
    using found = new ProcessFinder(proc).find(pod([network.pod.ip6]))!;
    expect(sameNetns(found, network.pod.netns)).toBe(true);
  });

  it("finds nothing without a process, without an address, or with somebody else's address", () => {
    const finder = new ProcessFinder(proc);
    expect(finder.find(pod([network.pod.ip4]))).toBeUndefined();
    addProcess(70, network.pod.path, CGROUP, 500);
    expect(finder.find(pod([]))).toBeUndefined();
    expect(finder.find(pod([network.other.ip4]))).toBeUndefined();
  });

  it.each([
    ["systemd driver", CGROUP, UID],
    ["cgroupfs driver", `12:pids:/kubepods/besteffort/pod${UID}/abc`, UID],
    ["static pod", `0::/kubepods/pod${"a".repeat(32)}/x`, "a".repeat(32)],
    ["no pod", "0::/system.slice/kubelet.service", undefined],
  ])("reads the uid from a cgroup of the %s", (_name, text, uid) => {
    expect(podUidOfCgroup(text)).toBe(uid);
  });

  it("takes an unreadable start time for the youngest", () => {
    expect(startTicksOfStat("")).toBe(Infinity);
  });
});

describe("annotation finder", () => {
  const find = (path: string) => new AnnotationFinder().find(pod([], { "ambit.io/netns": path }));

  it("opens the namespace that the runtime named", () => {
    using found = find(network.pod.path)!;
    expect(sameNetns(found, network.pod.netns)).toBe(true);
  });

  it.each([
    ["/run/netns/absent"],
    ["/run/netns/../../proc/self/ns/net"],
    ["/proc/1/ns/net"],
    ["/etc/passwd"],
    [""],
  ])("does not follow %s", (path) => expect(find(path)).toBeUndefined());
});
