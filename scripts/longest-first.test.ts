import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { LONG } from "./longest-first.ts";

it.each(LONG)("%s, which is started early, is there", (path) => {
  expect(existsSync(join(import.meta.dirname, "..", path))).toBe(true);
});
