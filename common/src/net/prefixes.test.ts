import { expect, it } from "vitest";
import { Prefixes } from "./prefixes.ts";

it("gives the Buffer's own beginning, of any length, and the same view for the same length", () => {
  const buffer = Buffer.alloc(2_000, 1);
  const prefixes = new Prefixes(buffer);
  for (const length of [0, 1, 255, 256, 257, 512, 1, 2_000, 257]) {
    expect(prefixes.of(length)).toHaveLength(length);
  }
  buffer[10] = 7;
  expect(prefixes.of(300)[10]).toBe(7);
  expect(prefixes.of(300)).toBe(prefixes.of(300));
});

it("holds no more than the Buffer has", () => {
  expect(new Prefixes(Buffer.alloc(5)).of(9)).toHaveLength(5);
});
