import { closeSync, fstatSync, openSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { AcceptPace, ACCEPTS_PER_SECOND, WAITING_MAX } from "./accept-pace.ts";

let clock: FakeClock;
let admitted: number[];
let pace: AcceptPace;

beforeEach(() => {
  clock = new FakeClock();
  admitted = [];
  pace = new AcceptPace(clock, (fd) => admitted.push(fd));
});
afterEach(() => {
  pace.close();
  for (const fd of admitted) closeSync(fd);
});

const connection = () => openSync("/dev/null", "r");
const isOpen = (fd: number) => {
  try {
    return fstatSync(fd) !== undefined;
  } catch {
    return false;
  }
};

describe("accept pace", () => {
  it("lets so many in at once and the next ones as the second goes by, in order", async () => {
    const fds = Array.from({ length: ACCEPTS_PER_SECOND + 2 }, connection);
    for (const fd of fds) expect(pace.offer(fd)).toBe(true);
    expect(admitted).toEqual(fds.slice(0, ACCEPTS_PER_SECOND));
    await clock.advance(999);
    expect(admitted).toHaveLength(ACCEPTS_PER_SECOND);
    await clock.advance(1);
    expect(admitted).toEqual(fds);
  });

  it("never lets more in during any second", async () => {
    pace.offer(connection());
    await clock.advance(900);
    for (let i = 0; i < ACCEPTS_PER_SECOND; i++) pace.offer(connection());
    expect(admitted).toHaveLength(ACCEPTS_PER_SECOND);
    await clock.advance(100);
    expect(admitted).toHaveLength(ACCEPTS_PER_SECOND + 1);
  });

  it("turns a crowd away, and closes what waits when it ends", () => {
    const count = ACCEPTS_PER_SECOND + WAITING_MAX;
    const fds = Array.from({ length: count }, connection);
    for (const fd of fds) expect(pace.offer(fd)).toBe(true);
    const surplus = connection();
    expect(pace.offer(surplus)).toBe(false);
    expect(isOpen(surplus)).toBe(false);
    pace.close();
    expect(fds.slice(ACCEPTS_PER_SECOND).some(isOpen)).toBe(false);
  });
});
