import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { lookUpInHosts, parseHosts } from "./hosts-file.ts";

const HOSTS = `
# comment
127.0.0.1\tlocalhost
::1 localhost ip6-localhost  # web.example
10.0.0.1 web.example WEB
10.0.0.2   db.example db
not-an-address web.example
10.0.0.3
10.0.0.1 web.example
`;

describe("the hosts file", () => {
  it.each([
    ["localhost", ["127.0.0.1", "::1"]],
    ["web.example", ["10.0.0.1", "10.0.0.1"]],
    ["web", ["10.0.0.1"]],
    ["ip6-localhost", ["::1"]],
    ["example", []],
    ["", []],
  ])("says of %j: %j", (name, addresses) => {
    expect(parseHosts(HOSTS, name)).toEqual(addresses);
  });

  it("may be missing, and is read anew each time", async () => {
    const folder = mkdtempSync(join(tmpdir(), "ambit-hosts-"));
    const path = join(folder, "hosts");
    expect(await lookUpInHosts("web.example", path)).toEqual([]);
    writeFileSync(path, HOSTS);
    expect(await lookUpInHosts("db", path)).toEqual(["10.0.0.2"]);
    rmSync(folder, { recursive: true });
  });
});
