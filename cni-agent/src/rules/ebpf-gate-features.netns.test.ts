// Each thing of the kernel's that redirection needs, taken away: the gate says so, by the check that found it,
// and leaves nothing behind. System calls are made to fail, and the programs call helpers and ask for maps that
// no kernel has, which is how an older one answers to newer ones.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants as os, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MAPS } from "@ambit/common/sys/bpf-layout.gen.ts";
import * as linux from "@ambit/common/sys/constants.ts";
import { createTestCgroups, type TestCgroups } from "../testing/test-cgroups.ts";
import type { GateTrial, MissingCall } from "../testing/gate-without.ts";

const OBJECT = join(import.meta.dirname, "../../../bpf/ambit.bpf.o");
const TRIAL = join(import.meta.dirname, "../testing/gate-without.ts");
const { EINVAL, ENOPROTOOPT, EPERM, EPROTONOSUPPORT } = os.errno;
/** Of system calls, by architecture. */
const NUMBERS = {
  x64: { bpf: 321, getsockopt: 55, socket: 41, unshare: 272 },
  arm64: { bpf: 280, getsockopt: 209, socket: 198, unshare: 97 },
}[process.arch as "x64" | "arm64"];
const Bpf = { MAP_CREATE: 0, PROG_LOAD: 5, OBJ_PIN: 6, LINK_CREATE: 28 };

let cgroups: TestCgroups;
let folder: string;
beforeAll(() => {
  cgroups = createTestCgroups();
  folder = mkdtempSync(join(tmpdir(), "ambit-features-"));
});
afterAll(() => {
  cgroups.remove();
  rmSync(folder, { recursive: true });
});

/** What the gate says where something is missing, one answer for each object, or one. */
function ask(
  trial: Omit<GateTrial, "options">,
  path = process.env["PATH"],
  before: readonly string[] = [],
): string[] {
  const options = { bpfFs: cgroups.bpffs, cgroup: cgroups.node };
  const run = [process.execPath, TRIAL, JSON.stringify({ ...trial, options })];
  const [program = "", ...args] = [...before, ...run];
  const { stdout, stderr } = spawnSync(program, args, {
    encoding: "utf8",
    env: { ...process.env, PATH: path },
  });
  if (stdout === "") throw new Error(stderr);
  const left = join(cgroups.bpffs, "ambit");
  expect(readdirSync(cgroups.bpffs).includes("ambit") ? readdirSync(left) : []).toEqual([]);
  return JSON.parse(stdout.trim().split("\n").at(-1)!) as string[];
}

it("opens where nothing is", () => {
  expect(ask({})).toEqual(["open"]);
});

describe("without a system call, or a part of it", () => {
  const bpf = (command: number, errno = EINVAL): MissingCall => {
    return { number: NUMBERS.bpf, arguments: { 0: command }, errno };
  };
  it.each<[string, MissingCall, RegExp]>([
    ["bpf(2)", { number: NUMBERS.bpf, errno: os.errno.ENOSYS }, /^programs: .*ENOSYS/],
    ["the right to bpf(2)", { number: NUMBERS.bpf, errno: EPERM }, /^programs: .*EPERM/],
    ["maps", bpf(Bpf.MAP_CREATE), /^programs: .*EINVAL/],
    ["programs", bpf(Bpf.PROG_LOAD), /^programs: .*EINVAL/],
    ["pins", bpf(Bpf.OBJ_PIN), /^programs: .*EINVAL/],
    ["links", bpf(Bpf.LINK_CREATE), /^attach: .*EINVAL/],
    [
      "cookies of namespaces",
      {
        number: NUMBERS.getsockopt,
        arguments: { 2: linux.SO_NETNS_COOKIE },
        errno: ENOPROTOOPT,
      },
      /^programs: .*ENOPROTOOPT/,
    ],
    ["namespaces", { number: NUMBERS.unshare, errno: EINVAL }, /^canary: .*EINVAL/],
    [
      "routes by netlink",
      {
        number: NUMBERS.socket,
        arguments: { 0: linux.AF_NETLINK, 2: linux.NETLINK_ROUTE },
        errno: EPROTONOSUPPORT,
      },
      /^canary: .*/,
    ],
  ])("%s", (_, missing, expected) => {
    expect(ask({ missing })).toEqual([expect.stringMatching(expected)]);
  });
});

/** Helpers are called by number; the upper byte of `src_reg` is 0 for them (linux/bpf.h, BPF_CALL). */
const CALL = Buffer.from([0x85, 0, 0, 0]);
/** No kernel has as many helpers or kinds of maps. */
const NONE_SUCH = 9_000;
/** More than Linux has had so far: what looks like a call and is more, or 0, is none. */
const HELPERS_MAX = 300;

function helperCalls(object: Buffer): Map<number, number[]> {
  const calls = new Map<number, number[]>();
  for (let at = object.indexOf(CALL); at !== -1; at = object.indexOf(CALL, at + 1)) {
    const helper = object.readUInt32LE(at + 4);
    if (at % 8 !== 0 || helper === 0 || helper >= HELPERS_MAX) continue;
    calls.getOrInsertComputed(helper, () => []).push(at);
  }
  return calls;
}

/** The object with other numbers at some places. */
function changed(name: string, places: readonly number[], value: number): string {
  const object = Buffer.from(readFileSync(OBJECT));
  for (const place of places) object.writeUInt32LE(value, place);
  const path = join(folder, name);
  writeFileSync(path, object);
  return path;
}

it("says which of the programs' helpers a kernel does not have", () => {
  const calls = [...helperCalls(readFileSync(OBJECT))];
  expect(calls.length).toBeGreaterThan(10);
  const objects = calls.map(([helper, places]) => {
    return changed(
      `helper-${helper}`,
      places.map((place) => place + 4),
      NONE_SUCH + helper,
    );
  });
  expect(ask({ objects })).toEqual(
    calls.map(([helper]) =>
      expect.stringMatching(
        // Of `steer`, which is loaded for each pod, the canary tells.
        new RegExp(`^(programs|canary): [^]*unknown#${NONE_SUCH + helper}`),
      ),
    ),
  );
}, 120_000);

/** struct btf_type of an array without a name, up to its length (linux/btf.h): maps say their kind by one. */
function arraysOf(object: Buffer, length: number): number[] {
  const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0]);
  const found: number[] = [];
  for (let at = object.indexOf(header); at !== -1; at = object.indexOf(header, at + 1)) {
    if (object.readUInt32LE(at + 20) === length) found.push(at + 20);
  }
  return found;
}

it("says so when a kernel does not have a kind of map", () => {
  const kinds = [...new Set(Object.values(MAPS).map(({ type }) => type))];
  const objects = kinds.map((kind) => {
    const places = arraysOf(readFileSync(OBJECT), kind);
    expect(places).not.toEqual([]);
    return changed(`map-${kind}`, places, NONE_SUCH);
  });
  expect(ask({ objects })).toEqual(kinds.map(() => expect.stringMatching(/^programs: .*EINVAL/)));
}, 120_000);

describe("without a program or library of the system's", () => {
  it("libbpf: says what to install", () => {
    const list = spawnSync("ldconfig", ["-p"], { encoding: "utf8" }).stdout;
    const [, library] = /libbpf\.so\.1 .*=> (\S+)/.exec(list)!;
    const hide = ["unshare", "-m", "sh", "-c", `mount --bind /dev/null ${library}; exec "$@"`, "-"];
    expect(ask({}, undefined, hide)).toEqual([
      expect.stringMatching(/^programs: .*libbpf\.so\.1 is missing: install libbpf1/),
    ]);
  });

  it("ip: says so", () => {
    expect(ask({}, join(folder, "nowhere"))).toEqual([expect.stringMatching(/^canary: .*ip/)]);
  });
});
