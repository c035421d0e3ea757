import { globSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { InputSource } from "./fuzz-input.ts";

interface FuzzTarget {
  readonly name: string;
  fuzz(data: Uint8Array): void;
  corpus?(): Uint8Array[];
}

const ROOT = resolve(import.meta.dirname, "../../..");
const INPUTS = 500;
const SEED = 20_26;

const files = globSync("{common,ztunnel,istiod-lite,cni-agent,api,cli}/src/**/*.fuzz.ts", {
  cwd: ROOT,
});

describe("every fuzz target withstands a first round of inputs", () => {
  it("finds the targets", () => expect(files.length).toBeGreaterThan(0));
  for (const file of files) {
    it(file, async () => {
      const target = (await import(resolve(ROOT, file))) as FuzzTarget;
      const inputs = new InputSource(SEED, target.corpus?.() ?? []);
      for (let i = 0; i < INPUTS; i++) target.fuzz(inputs.next());
    });
  }
});
