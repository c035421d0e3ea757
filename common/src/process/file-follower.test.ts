import {
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { FakeClock } from "../testing/fake-clock.ts";
import { FileFollower, FOLLOW_INTERVAL_MS } from "./file-follower.ts";

let folder: string;
let clock: FakeClock;
let follower: FileFollower | undefined;
const seen: (string | undefined)[] = [];
const errors: string[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ambit-follow-"));
  clock = new FakeClock();
  seen.length = 0;
  errors.length = 0;
});

afterEach(() => {
  follower?.close();
  rmSync(folder, { recursive: true, force: true });
});

function follow(path: string): void {
  follower = new FileFollower({
    path,
    clock,
    onContent: (content) => seen.push(content?.toString()),
    onError: (reason) => errors.push(reason),
  });
}

it("tells the content at once, and again only when it changes", async () => {
  const path = join(folder, "file");
  writeFileSync(path, "one");
  follow(path);
  expect(seen).toEqual(["one"]);
  await clock.advance(3 * FOLLOW_INTERVAL_MS);
  writeFileSync(path, "two");
  await clock.advance(FOLLOW_INTERVAL_MS);
  expect(seen).toEqual(["one", "two"]);
});

it("sees a file come, go and come again, also with its folder", async () => {
  const path = join(folder, "later", "file");
  follow(path);
  mkdirSync(join(folder, "later"));
  writeFileSync(path, "here");
  await clock.advance(FOLLOW_INTERVAL_MS);
  rmSync(join(folder, "later"), { recursive: true });
  await clock.advance(FOLLOW_INTERVAL_MS);
  mkdirSync(join(folder, "later"));
  writeFileSync(path, "here");
  await clock.advance(FOLLOW_INTERVAL_MS);
  expect(seen).toEqual([undefined, "here", undefined, "here"]);
});

it("sees a mounted volume change behind its links", async () => {
  for (const version of ["1", "2"]) {
    mkdirSync(join(folder, version));
    writeFileSync(join(folder, version, "crl.pem"), `same size ${version}`);
  }
  symlinkSync("1", join(folder, "..data"));
  symlinkSync(join("..data", "crl.pem"), join(folder, "crl.pem"));
  follow(join(folder, "crl.pem"));
  symlinkSync("2", join(folder, "..data_tmp"));
  renameSync(join(folder, "..data_tmp"), join(folder, "..data"));
  await clock.advance(FOLLOW_INTERVAL_MS);
  expect(seen).toEqual(["same size 1", "same size 2"]);
});

it("says once why a file cannot be read, and recovers", async () => {
  const path = join(folder, "file");
  mkdirSync(path);
  follow(path);
  await clock.advance(2 * FOLLOW_INTERVAL_MS);
  expect(errors).toHaveLength(1);
  rmSync(path, { recursive: true });
  writeFileSync(path, "readable");
  await clock.advance(FOLLOW_INTERVAL_MS);
  expect(seen).toEqual(["readable"]);
});

it("stops looking when closed", async () => {
  const path = join(folder, "file");
  writeFileSync(path, "one");
  follow(path);
  follower!.close();
  unlinkSync(path);
  await clock.advance(2 * FOLLOW_INTERVAL_MS);
  expect(seen).toEqual(["one"]);
  expect(clock.pendingTimers).toBe(0);
});
