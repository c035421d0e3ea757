// `npm test`: the checks, then every test that needs no cluster, and one closing line with what ran.
// Arguments are handed to vitest; with any, only the tests they name run, without the checks.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly success: boolean;
}

const selection = process.argv.slice(2);
const run = (file: string, args: readonly string[]) =>
  spawnSync(file, args, { stdio: "inherit" }).status === 0;

const checked = selection.length > 0 || run(process.execPath, ["scripts/check.ts"]);
const folder = mkdtempSync(join(tmpdir(), "ambit-test-"));
const reportFile = join(folder, "report.json");
run("vitest", [
  "run",
  "--project=unit",
  "--project=netns",
  "--reporter=default",
  "--reporter=json",
  `--outputFile.json=${reportFile}`,
  ...selection,
]);
const report = readReport();
rmSync(folder, { recursive: true, force: true });

if (!checked) console.error("npm run check failed: see above");
console.log(`${report.numPassedTests} passed, ${report.numFailedTests} failed`);
process.exitCode = checked && report.success && report.numPassedTests > 0 ? 0 : 1;

/** Without a report vitest itself failed: that counts as a failure of everything. */
function readReport(): Report {
  try {
    return JSON.parse(readFileSync(reportFile, "utf8")) as Report;
  } catch {
    return { numPassedTests: 0, numFailedTests: 1, success: false };
  }
}
