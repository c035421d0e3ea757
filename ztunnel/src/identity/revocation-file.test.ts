import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FOLLOW_INTERVAL_MS } from "@ambit/common/process/file-follower.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { TestCa } from "@ambit/common/testing/test-ca.ts";
import { parseRevocationLists } from "@ambit/common/tls/revocation-list.ts";
import { RevocationFile } from "./revocation-file.ts";

const ca = new TestCa();
let folder: string;
let path: string;
let clock: FakeClock;
let file: RevocationFile | undefined;
let lines: string[];
/** The serial numbers of each load. */
let loads: string[][];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ambit-crl-"));
  path = join(folder, "crl.pem");
  clock = new FakeClock();
  loads = [];
});
afterEach(() => {
  file?.close();
  rmSync(folder, { recursive: true, force: true });
});

function follow(): void {
  const memory = memoryLog();
  ({ lines } = memory);
  file = new RevocationFile({
    path,
    clock,
    log: memory.log.scope("identity"),
    onLoaded: (bytes) =>
      loads.push(parseRevocationLists(Buffer.from(bytes)).flatMap(({ serials }) => [...serials])),
  });
}

async function write(content: string): Promise<void> {
  writeFileSync(path, content);
  await clock.advance(FOLLOW_INTERVAL_MS);
}

const messages = () => lines.map((line) => (JSON.parse(line) as { message: string }).message);

describe("the file of revocation lists", () => {
  it("is loaded before anything else happens, and again when it changes", async () => {
    writeFileSync(path, ca.revoke("0a"));
    follow();
    expect(loads).toEqual([["a"]]);
    await write(ca.revoke("0a", "0b"));
    expect(loads).toEqual([["a"], ["a", "b"]]);
  });

  it("may come later", async () => {
    follow();
    expect(messages()).toEqual(["no file of revocation lists"]);
    await write(ca.revoke("0c"));
    expect(loads).toEqual([["c"]]);
  });

  it("may be empty: then nothing is revoked", async () => {
    writeFileSync(path, ca.revoke("0a"));
    follow();
    await write("");
    expect(loads).toEqual([["a"], []]);
  });

  it("that does not parse is said in the log, and what was in force stays", async () => {
    writeFileSync(path, ca.revoke("0a"));
    follow();
    await write("no list");
    expect(loads).toEqual([["a"]]);
    expect(lines.at(-1)).toMatch(/"level":"warn".*"message":"revocation lists not loaded"/);
    await write(ca.revoke("0d"));
    expect(loads).toEqual([["a"], ["d"]]);
  });

  it("that does not parse at the start is taken once it does", async () => {
    writeFileSync(path, "no list");
    follow();
    expect(loads).toEqual([]);
    await write(ca.revoke("0e"));
    expect(loads).toEqual([["e"]]);
  });

  it("that goes away leaves in force what it said", async () => {
    writeFileSync(path, ca.revoke("0a"));
    follow();
    rmSync(path);
    await clock.advance(FOLLOW_INTERVAL_MS);
    expect(loads).toEqual([["a"]]);
    expect(messages().at(-1)).toBe("no file of revocation lists");
  });
});
