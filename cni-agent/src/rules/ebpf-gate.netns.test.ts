// Every way in which a node can turn out unable to redirect by eBPF, and that nothing is left behind then.

import { spawnSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadObject } from "@ambit/common/sys/bpf-object.ts";
import { pinObject } from "@ambit/common/sys/bpf-map.ts";
import { mapFolder, pinFolder } from "@ambit/common/sys/bpf-steering.ts";
import { createTestCgroups, type TestCgroups } from "../testing/test-cgroups.ts";
import { type GateCheck, GateError, type GateOptions, openEbpf } from "./ebpf-gate.ts";
import { NftablesBackend } from "./nftables-backend.ts";

let cgroups: TestCgroups;
let folder: string;
let elsewhere: string;

beforeAll(() => {
  cgroups = createTestCgroups();
  folder = mkdtempSync(join(tmpdir(), "ambit-gate-"));
  elsewhere = join(cgroups.node, "elsewhere");
  mkdirSync(elsewhere);
});
afterAll(() => {
  rmdirSync(elsewhere);
  cgroups.remove();
  rmSync(folder, { recursive: true });
});

function options(changes: Partial<GateOptions> = {}): GateOptions {
  return {
    nodeName: "node-1",
    bpfFs: cgroups.bpffs,
    cgroup: cgroups.node,
    procFolder: "/proc",
    hostNetns: undefined,
    kubeletCgroup: undefined,
    probes: new NftablesBackend({ hostNetns: undefined, probeUid: undefined }),
    ...changes,
  };
}

/** A /proc whose first process sees `cgroup` as its cgroup2 mount. */
function procSeeing(name: string, cgroup: string): string {
  const proc = join(folder, name);
  for (const part of ["root", "ns"]) mkdirSync(join(proc, "1", part), { recursive: true });
  symlinkSync("/proc/self/ns/cgroup", join(proc, "1/ns/cgroup"));
  writeFileSync(join(proc, "1/mounts"), "cgroup2 /cg cgroup2 rw 0 0\n");
  symlinkSync(cgroup, join(proc, "1/root/cg"));
  return proc;
}

async function refusal(changes: Partial<GateOptions>): Promise<GateError> {
  const error = await openEbpf(options(changes)).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(GateError);
  return error as GateError;
}

it("opens where everything is there, and enrols nobody by that", async () => {
  const { node } = await openEbpf(options());
  expect(node.steering.pods().size).toBe(0);
  expect(node.pins.names("pods")).toEqual([]);
  expect(node.pins.names("links")).toHaveLength(9);
  node.pins.removeAll();
  node[Symbol.dispose]();
});

describe("the gate stays closed", () => {
  it.each<[string, GateCheck, RegExp, () => Partial<GateOptions>]>([
    [
      "on an old kernel",
      "kernel",
      /Linux 5\.10.* older than 5\.15/,
      () => ({ kernelRelease: "5.10.0-8-amd64" }),
    ],
    [
      "where no cgroup is found",
      "cgroup",
      /node's cgroup is not found/,
      () => ({ cgroup: undefined, procFolder: folder }),
    ],
    [
      "when the agent is not in the node's cgroup",
      "cgroup",
      /agent runs in .*apps, outside/,
      () => ({ cgroup: elsewhere }),
    ],
    [
      "when no BPF file system can be mounted",
      "bpffs",
      /cannot mount/,
      () => ({ bpfFs: "/dev/null/bpf" }),
    ],
    [
      "when what is called a cgroup is none",
      "attach",
      /cannot attach/,
      () => ({ cgroup: undefined, procFolder: procSeeing("no-cgroup", folder) }),
    ],
    [
      "when a connection is not captured",
      "canary",
      /test connection to 198\.51\.100\.7:7001 did not arrive/,
      () => ({ cgroup: undefined, procFolder: procSeeing("other-cgroup", elsewhere) }),
    ],
  ])("%s", async (_name, check, message, changes) => {
    const error = await refusal(changes());
    expect(error.check).toBe(check);
    expect(error.message).toMatch(message);
    const left = join(cgroups.bpffs, "ambit");
    expect(readdirSync(cgroups.bpffs).includes("ambit") ? readdirSync(left) : []).toEqual([]);
  });

  it("when the kernel refuses to load", async () => {
    const pins = pinFolder(cgroups.bpffs, "refused");
    mkdirSync(mapFolder(pins), { recursive: true });
    using other = loadObject({ programs: ["steer"] });
    pinObject(other.maps.get("lease")!, join(mapFolder(pins), "pods"));
    const error = await refusal({ nodeName: "refused" });
    expect(error.check).toBe("programs");
    rmSync(pins, { recursive: true });
  });

  it("without the right to load, saying so", () => {
    const script = `
      import { openEbpf } from ${JSON.stringify(join(import.meta.dirname, "ebpf-gate.ts"))};
      const error = await openEbpf({ nodeName: "n", bpfFs: ${JSON.stringify(cgroups.bpffs)},
        cgroup: ${JSON.stringify(cgroups.node)}, procFolder: "/proc", probes: undefined }).catch((e) => e);
      console.log(error.check + ": " + error.message);`;
    const program = [process.execPath, "--input-type=module", "-e", script];
    const options = ["--bounding-set", "-sys_admin,-bpf,-perfmon", "--"];
    const { stdout } = spawnSync("setpriv", [...options, ...program], { encoding: "utf8" });
    expect(stdout).toMatch(/^programs: .*EPERM/);
  });
});
