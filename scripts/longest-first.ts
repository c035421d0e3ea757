// The order in which vitest starts files: those that take minutes first, so that none of them runs alone
// at the end. Of the others the order is vitest's own: by their durations last time, or by size.

import { relative } from "node:path";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** What takes more than fifteen seconds, the longest first. */
export const LONG: readonly string[] = [
  "cli/test/endurance.netns.test.ts",
  "cli/test/resilience.netns.test.ts",
  "cli/test/killed.netns.test.ts",
  "cli/test/unenrolled.netns.test.ts",
  "cli/test/upgrade.netns.test.ts",
  "cli/test/redirection.netns.test.ts",
  "cli/test/traffic.netns.test.ts",
  "cli/test/start.netns.test.ts",
  "cli/test/waypoint.netns.test.ts",
  "cli/test/policy-cases.netns.test.ts",
  "ztunnel/test/handover.netns.test.ts",
  "cli/test/root-rotation.netns.test.ts",
  "cli/test/mistakes.netns.test.ts",
  "cli/test/control-plane.netns.test.ts",
  "ztunnel/test/direct.netns.test.ts",
  "cli/test/policy.netns.test.ts",
  "cli/test/direct.netns.test.ts",
  "ztunnel/test/dedicated.netns.test.ts",
];

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    return sorted.toSorted((a, b) => this.#rank(a) - this.#rank(b));
  }

  #rank({ moduleId }: TestSpecification): number {
    const index = LONG.indexOf(relative(this.ctx.config.root, moduleId));
    return index === -1 ? LONG.length : index;
  }
}
