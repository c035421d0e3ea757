import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { CertificateAuthority } from "./authority.ts";
import { loadSelfSigned, RENEWAL_CHECK_MS, RootRenewal } from "./self-signed.ts";

const YEAR_MS = 365 * 86_400_000;
let folder: string;
let clock: FakeClock;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ambit-ca-"));
  clock = new FakeClock();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const load = () => loadSelfSigned(folder, "td", clock.nowMs());
const publicKey = (pem: string) => new X509Certificate(pem).publicKey;

function renewing(): { authority: CertificateAuthority; renewal: RootRenewal; lines: string[] } {
  const { log: root, lines } = memoryLog("info");
  const log = root.scope("ca");
  const authority = new CertificateAuthority(load(), clock);
  const renewal = new RootRenewal({ authority, load, clock, random: () => 1, log });
  return { authority, renewal, lines };
}

it("is the same after a restart, and of its trust domain", () => {
  const { certificatePem } = load();
  expect(load().certificatePem).toBe(certificatePem);
  expect(new X509Certificate(certificatePem).subject).toBe("O=td");
});

it("keeps its key where only its owner reads it", () => {
  load();
  expect(readFileSync(join(folder, "ca-key.pem"), "utf8")).toContain("PRIVATE KEY");
  expect(statSync(join(folder, "ca-key.pem")).mode & 0o777).toBe(0o600);
});

it.each([
  ["is kept until the last fifth of its life", 7.9, true],
  ["is renewed with the same key in it", 8.1, false],
])("%s", async (_, years, kept) => {
  const before = load().certificatePem;
  await clock.advance(years * YEAR_MS);
  const after = load().certificatePem;
  expect(after === before).toBe(kept);
  expect(publicKey(after).equals(publicKey(before))).toBe(true);
});

it("is renewed while running, and what the old root signed still verifies", async () => {
  load();
  await clock.advance(7.995 * YEAR_MS);
  const { authority, renewal, lines } = renewing();
  const before = authority.rootBundlePem;
  await clock.advance(0.003 * YEAR_MS);
  expect(authority.rootBundlePem).toBe(before);
  await clock.advance(0.004 * YEAR_MS);
  expect(authority.rootBundlePem).not.toBe(before);
  expect(publicKey(authority.rootBundlePem).equals(publicKey(before))).toBe(true);
  expect(lines.join()).toContain("root certificate renewed");
  renewal.close();
  expect(clock.pendingTimers).toBe(0);
});

it("follows another process that renewed it", async () => {
  const { authority, renewal } = renewing();
  const renewed = loadSelfSigned(folder, "td", clock.nowMs() + 9 * YEAR_MS).certificatePem;
  await clock.advance(RENEWAL_CHECK_MS);
  expect(authority.rootBundlePem).toBe(renewed);
  renewal.close();
});

it("signs on with what it has when its folder cannot be read", async () => {
  const { authority, renewal, lines } = renewing();
  const before = authority.rootBundlePem;
  rmSync(folder, { recursive: true });
  const failing = new RootRenewal({
    authority,
    load: () => {
      throw new Error("disk on fire");
    },
    clock,
    random: () => 0,
    log: memoryLog("info").log.scope("ca"),
  });
  await clock.advance(RENEWAL_CHECK_MS / 2);
  expect(authority.rootBundlePem).toBe(before);
  failing.close();
  renewal.close();
  expect(lines).toEqual([]);
});
