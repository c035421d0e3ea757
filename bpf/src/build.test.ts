import { readFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { expect, it } from "vitest";
import { compile, LAYOUT, layoutOf, OBJECT, readRecord, recordOf, toolchain } from "./build.ts";
import { elfSections } from "./elf.ts";

const committed = readFileSync(OBJECT);
const record = readRecord();
const here = toolchain();

it("records the committed object's checksum and size", () => {
  expect(recordOf(committed, record)).toEqual(record);
});

it("has the layout that user space was given", () => {
  const formatted = spawnSync("npx", ["--no-install", "oxfmt", `--stdin-filepath=${LAYOUT}`], {
    input: layoutOf(committed),
    encoding: "utf8",
  });
  expect(formatted.stdout).toBe(readFileSync(LAYOUT, "utf8"));
});

it("carries types but no debugging information, and says that it may be used under the GPL", () => {
  const sections = elfSections(committed);
  expect([...sections.keys()].filter((name) => name.startsWith(".debug"))).toEqual([]);
  expect(sections.get(".BTF")).toBeDefined();
  expect(sections.get("license")!.toString()).toBe("Dual BSD/GPL\0");
});

it("refuses what is no BPF object", () => {
  expect(() => elfSections(Buffer.alloc(64))).toThrow("not a 64-bit little-endian ELF file");
});

// Another compiler makes other, equally good code: only the recorded one must make the same bytes.
it.runIf(here !== undefined)("is what the sources compile to", () => {
  const built = compile();
  expect(layoutOf(built)).toBe(layoutOf(committed));
  const isRecorded = here!.clang === record.clang && here!.headers === record.headers;
  if (isRecorded) expect(recordOf(built, here!)).toEqual(record);
});
