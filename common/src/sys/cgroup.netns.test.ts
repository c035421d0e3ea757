import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cgroupId, findCgroup2, isWithin, nodeCgroups, ownCgroups } from "./cgroup.ts";

const CGROUP = JSON.stringify(join(import.meta.dirname, "cgroup.ts"));

/** A /proc in which this process is the first: looking into the real one may not be allowed. */
let proc: string;
beforeAll(() => {
  proc = mkdtempSync(join(tmpdir(), "ambit-proc-"));
  symlinkSync(`/proc/${process.pid}`, join(proc, "1"));
});
afterAll(() => rmSync(proc, { recursive: true }));

describe("cgroups", () => {
  it("are seen by this process as by the first one, where both have one namespace", () => {
    const [own, node] = [ownCgroups()!, nodeCgroups(proc)!];
    expect(cgroupId(node.root)).toBe(cgroupId(own.root));
    expect(cgroupId(node.folderOf("self"))).toBe(cgroupId(own.folderOf("self")));
  });

  it("are found by a process whose namespace begins in its own cgroup", () => {
    const folder = join(findCgroup2()!, `ambit-test-cgroupns-${process.pid}`);
    const sibling = join(folder, "sibling");
    mkdirSync(join(folder, "own"), { recursive: true });
    mkdirSync(sibling);
    const other = spawnSync("sh", ["-c", `sleep 60 >/dev/null 2>&1 & echo $!`], {
      encoding: "utf8",
    });
    const pid = Number(other.stdout);
    try {
      writeFileSync(join(sibling, "cgroup.procs"), `${pid}`);
      const script = `
        import { cgroupId, nodeCgroups, ownCgroups } from ${CGROUP};
        console.log(String(cgroupId(nodeCgroups(${JSON.stringify(proc)}).folderOf(${pid}))));
        console.log(ownCgroups().folderOf("self"));`;
      const program = [process.execPath, "--input-type=module", "-e", script];
      const enter = 'echo 0 > "$1/cgroup.procs"; shift; exec unshare --cgroup "$@"';
      const args = ["-c", enter, "sh", join(folder, "own"), ...program];
      const [found, own] = execFileSync("sh", args, { encoding: "utf8" }).split("\n");
      expect(found).toBe(String(cgroupId(sibling)));
      expect(own).toBe(findCgroup2());
    } finally {
      process.kill(pid, "SIGKILL");
      for (const each of [join(folder, "own"), sibling, folder]) removeWhenEmpty(each);
    }
  });

  it.each([
    ["/a/b", "/a", true],
    ["/a", "/a", true],
    ["/a", "/a/b", false],
    ["/ab", "/a", false],
    ["/a", "/", true],
  ])("%s is within %s: %s", (folder, ancestor, expected) => {
    expect(isWithin(folder, ancestor)).toBe(expected);
  });
});

/** A killed process leaves its cgroup a moment later. */
function removeWhenEmpty(folder: string): void {
  const endMs = performance.now() + 5_000;
  for (;;) {
    try {
      return rmdirSync(folder);
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
  }
}
