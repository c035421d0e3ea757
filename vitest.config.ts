import { defineConfig } from "vitest/config";

// Unit tests run beside the code in every workspace. Tests that need root and network namespaces
// (`*.netns.test.ts`) run one file at a time: they share the machine's kernel.
export default defineConfig({
  test: {
    testTimeout: 20_000,
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["*/{src,test}/**/*.test.ts", "scripts/**/*.test.ts"],
          exclude: ["**/*.netns.test.ts", "**/node_modules/**"],
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
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
