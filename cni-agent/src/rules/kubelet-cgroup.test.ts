import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { findKubeletCgroup } from "./kubelet-cgroup.ts";

const SERVICE = "/system.slice/kubelet.service";

let proc: string;
beforeEach(() => {
  proc = mkdtempSync(join(tmpdir(), "ambit-proc-"));
});
afterEach(() => rmSync(proc, { recursive: true }));

function add(pid: number, name: string, parent: number, cgroup: string): void {
  mkdirSync(join(proc, `${pid}`));
  writeFileSync(join(proc, `${pid}`, "stat"), `${pid} (${name}) S ${parent} 1 1 0 -1\n`);
  writeFileSync(join(proc, `${pid}`, "cgroup"), cgroup);
}

const cgroups = { root: "/cg", folderOf: (pid: number | "self") => `/cg/of/${pid}` };
const find = () => findKubeletCgroup(cgroups, proc);

it("is where the process called kubelet is, with what it started", () => {
  add(1, "systemd", 0, "0::/init.scope\n");
  add(70, "kubelet", 1, `12:cpu:/x\n0::${SERVICE}\n`);
  add(71, "mount", 70, `0::${SERVICE}\n`);
  add(72, "nfs (v4) x", 71, `0::${SERVICE}/helper\n`);
  add(90, "nginx", 1, `0::${SERVICE}2\n`);
  expect(find()).toBe("/cg/of/70");
});

it.each([
  ["without kubelet", () => add(5, "kubelet2", 1, `0::${SERVICE}\n`), /no process .* is called/],
  ["without cgroup v2", () => add(5, "kubelet", 1, "4:cpu:/kubelet\n"), /no process .* is called/],
  [
    "where somebody else runs too",
    () => {
      add(5, "kubelet", 1, "0::/k3s\n");
      add(6, "containerd", 1, "0::/k3s\n");
    },
    /kubelet's cgroup \/k3s holds containerd \(process 6\) too/,
  ],
  [
    "where somebody else runs below",
    () => {
      add(5, "kubelet", 1, "0::/\n");
      add(6, "app", 1, "0::/pods/app\n");
    },
    /holds app \(process 6\) too/,
  ],
])("is not found %s", (_name, prepare, message) => {
  prepare();
  writeFileSync(join(proc, "version"), "");
  mkdirSync(join(proc, "99"));
  expect(find).toThrow(message);
});
