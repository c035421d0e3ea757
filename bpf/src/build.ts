// Builds the BPF object and everything derived from it. The committed files must be what this makes:
// `--check` builds aside and compares, where the compiler is the one that made them.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Btf } from "./btf.ts";
import { elfSections } from "./elf.ts";
import { renderLayout } from "./layout.ts";

const FOLDER = resolve(import.meta.dirname, "..");
export const OBJECT = join(FOLDER, "ambit.bpf.o");
export const RECORD = join(FOLDER, "ambit.bpf.json");
export const LAYOUT = resolve(FOLDER, "../common/src/sys/bpf-layout.gen.ts");

/** Where distributions keep asm/ of their own architecture. */
const HEADERS = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
  .map((name) => `/usr/include/${name}`)
  .filter((path) => existsSync(path))
  .map((path) => `-I${path}`);

/** cpu=v2: instructions that every kernel since 4.14 has. */
const FLAGS = [
  "-O2",
  "-g",
  "-Wall",
  "-Werror",
  "-Wno-unused-variable",
  "-target",
  "bpfel",
  "-mcpu=v2",
  "-fdebug-compilation-dir=.",
];

/** What makes the same source the same bytes. */
export interface Toolchain {
  readonly clang: string;
  /** LINUX_VERSION_CODE of the UAPI headers, whose structures are in the object's types. */
  readonly headers: number;
}

export interface BuildRecord extends Toolchain {
  readonly sha256: string;
  readonly bytes: number;
}

/** undefined where clang, llvm-strip or the headers are missing. */
export function toolchain(): Toolchain | undefined {
  const { stdout, status } = spawnSync("clang", ["--version"], { encoding: "utf8" });
  const strip = spawnSync("llvm-strip", ["--version"]);
  const version = "/usr/include/linux/version.h";
  if (status !== 0 || strip.status !== 0 || !existsSync(version)) return undefined;
  const [, clang = "unknown"] = /version (\S+)/.exec(stdout) ?? [];
  const [, code = "0"] = /LINUX_VERSION_CODE (\d+)/.exec(readFileSync(version, "utf8")) ?? [];
  return { clang, headers: Number(code) };
}

/** Compiles the programs; throws with the compiler's words. */
export function compile(): Buffer {
  const folder = mkdtempSync(join(tmpdir(), "ambit-bpf-"));
  try {
    const object = join(folder, "ambit.bpf.o");
    run("clang", [...FLAGS, ...HEADERS, "-c", "ambit.bpf.c", "-o", object]);
    run("llvm-strip", ["-g", object]);
    return readFileSync(object);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export function layoutOf(object: Buffer): string {
  const section = elfSections(object).get(".BTF");
  if (section === undefined) throw new Error("the object has no types: was it built with -g?");
  const source = (name: string) => readFileSync(join(FOLDER, "include", name), "utf8");
  return renderLayout(new Btf(section), source("state.h") + source("direct.h"));
}

export function recordOf(object: Buffer, made: Toolchain): BuildRecord {
  const sha256 = createHash("sha256").update(object).digest("hex");
  return { sha256, bytes: object.length, ...made };
}

export function readRecord(): BuildRecord {
  return JSON.parse(readFileSync(RECORD, "utf8")) as BuildRecord;
}

function run(program: string, args: string[]): void {
  const { status, stderr } = spawnSync(program, args, { cwd: FOLDER, encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} failed:\n${stderr}`);
}

if (import.meta.main) {
  const made = toolchain();
  if (made === undefined) {
    throw new Error("clang, llvm-strip and linux-libc-dev are needed: apt-get install clang llvm");
  }
  const object = compile();
  writeFileSync(OBJECT, object);
  writeFileSync(RECORD, `${JSON.stringify(recordOf(object, made), undefined, 2)}\n`);
  writeFileSync(LAYOUT, layoutOf(object));
  spawnSync("npx", ["--no-install", "oxfmt", LAYOUT], { stdio: "inherit" });
}
