// h2spec, the independent conformance suite, against our codec: built from its Go module into a
// temporary folder. Skipped, with the reason, where Go or its modules are not to be had.

import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, describe, expect, it } from "vitest";
import { startConformanceServer } from "./h2spec/server.ts";

const run = promisify(execFile);
const MODULE = join(import.meta.dirname, "h2spec");
const PROGRAM = "github.com/summerwind/h2spec/cmd/h2spec";
/** Go's own installer puts it there, on no PATH by default. */
const env = { ...process.env, PATH: `${process.env["PATH"]}${delimiter}/usr/local/go/bin` };
/** A cold build compiles Go's TLS library; with Go's cache it takes a second. */
const BUILD_TIMEOUT_MS = 300_000;
/** What the pinned version runs with --strict; fewer would mean that it gave up. */
const CASES = 146;

const folder = mkdtempSync(join(tmpdir(), "ambit-h2spec-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function reasonToSkip(): string | undefined {
  try {
    execFileSync("go", ["version"], { env, stdio: "ignore" });
  } catch {
    return "Go is not installed";
  }
  try {
    execFileSync("go", ["mod", "download"], { cwd: MODULE, env, stdio: "ignore" });
  } catch {
    return "its Go modules cannot be downloaded";
  }
  return undefined;
}

const reason = reasonToSkip();
if (reason !== undefined) process.stderr.write(`h2spec is skipped: ${reason}\n`);

describe.skipIf(reason !== undefined)("our HTTP/2 codec as a server", () => {
  it(
    "passes every case of h2spec, the strict ones too",
    { timeout: BUILD_TIMEOUT_MS },
    async () => {
      const binary = join(folder, "h2spec");
      await run("go", ["build", "-o", binary, PROGRAM], { cwd: MODULE, env });
      const server = await startConformanceServer();
      try {
        const report = await run(binary, ["--strict", "--port", String(server.port)], {
          env,
        }).catch((failed: { stdout: string }) => failed);
        const failures = report.stdout.slice(report.stdout.indexOf("Failures:"));
        expect(report.stdout, failures).toContain(
          `${CASES} tests, ${CASES} passed, 0 skipped, 0 failed`,
        );
      } finally {
        server.close();
      }
    },
  );
});
