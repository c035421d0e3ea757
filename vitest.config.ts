import { join } from "node:path";
import { defineConfig } from "vitest/config";
import { LongestFirst } from "./scripts/longest-first.ts";

// Unit tests run beside the code in every workspace. After them come the tests that need root and network
// namespaces (`*.netns.test.ts`), two files at a time: much of their time they wait, and each makes
// namespaces, cgroups and pins of its own. `npm run soak` runs what kills programs at random moments,
// or replaces them under a heavy load (`*.soak.test.ts`), for as long as one likes; `npm test` does not.
export default defineConfig({
  test: {
    testTimeout: 20_000,
    sequence: { sequencer: LongestFirst },
    // Tests start hundreds of programs: what was compiled once is compiled for all.
    env: { NODE_COMPILE_CACHE: join(import.meta.dirname, ".cache/compile") },
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["*/{src,test}/**/*.test.ts", "scripts/**/*.test.ts"],
          exclude: ["**/*.{netns,soak}.test.ts", "**/node_modules/**"],
          pool: "threads",
        },
      },
      {
        extends: true,
        test: {
          name: "netns",
          include: ["*/{src,test}/**/*.netns.test.ts"],
          exclude: ["**/node_modules/**"],
          pool: "forks",
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        extends: true,
        test: {
          name: "soak",
          include: ["*/test/**/*.soak.test.ts"],
          pool: "forks",
          fileParallelism: false,
          sequence: { groupOrder: 2 },
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
