import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";

const MAIN = join(import.meta.dirname, "main.ts");
const folder = mkdtempSync(join(tmpdir(), "istiod-lite-main-"));
const PORTS = { XDS_PORT: "0", XDS_TLS_PORT: "0", HTTP_PORT: "0", METRICS_PORT: "0" };

afterAll(() => rmSync(folder, { recursive: true }));

function start(env: Record<string, string>): { child: ChildProcess; output: () => string } {
  const child = spawn(process.execPath, [MAIN], { env: { BIND_ADDRESS: "127.0.0.1", ...env } });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
      child.emit("output");
    });
  }
  return { child, output: () => text };
}

describe("the istiod-lite program", () => {
  it("runs until SIGTERM and leaves with 0", async () => {
    const { child, output } = start({ MANIFESTS: folder, ...PORTS });
    while (!output().includes("ready")) await once(child, "output");
    child.kill("SIGTERM");
    expect(await once(child, "close")).toEqual([0, null]);
    expect(output()).toContain("draining");
  });

  it.each([
    [
      "usage with 2",
      { MANIFESTS: "", XDS_PORT: "x" },
      2,
      /error: invalid configuration: .*XDS_PORT.*MANIFESTS/,
    ],
    [
      "the environment with 1",
      { MANIFESTS: "/none", ...PORTS },
      1,
      /error: cannot read manifests from \/none/,
    ],
  ])("explains a problem of %s", async (_what, env, code, message) => {
    const { child, output } = start(env);
    expect(await once(child, "close")).toEqual([code, null]);
    expect(output()).toMatch(message);
    expect(output()).not.toContain("    at ");
  });
});
