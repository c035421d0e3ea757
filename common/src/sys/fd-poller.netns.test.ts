import { fstatSync } from "node:fs";
import { afterEach, expect, it } from "vitest";
import { type FdWatch, watchFd } from "./fd-poller.ts";
import { call, callRaw } from "./libc.ts";

const EFD_NONBLOCK = 0o4000;
const ONE = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);

let watch: FdWatch | undefined;
afterEach(() => watch?.close());

function signal(fd: number): void {
  call("write", "eventfd", fd, ONE, ONE.length);
}

it("tells each time that a descriptor can be read", async () => {
  const fd = call("eventfd", "", 0, EFD_NONBLOCK);
  let wake = () => {};
  watch = watchFd(fd, () => {
    callRaw("read", fd, Buffer.alloc(8), 8);
    wake();
  });
  for (let round = 0; round < 3; round++) {
    const told = new Promise<void>((resolve) => (wake = resolve));
    signal(fd);
    await told;
  }
});

it("says nothing more once it is closed, and takes the descriptor along", async () => {
  const fd = call("eventfd", "", 0, EFD_NONBLOCK);
  const other = call("eventfd", "", 0, EFD_NONBLOCK);
  let calls = 0;
  const closing = watchFd(fd, () => {
    calls++;
    closing.close();
  });
  signal(fd);
  await expect.poll(() => closing.closed).toBe(true);
  closing.close();
  expect(() => fstatSync(fd)).toThrow(/EBADF/);
  const told = new Promise<void>((resolve) => {
    watch = watchFd(other, () => {
      callRaw("read", other, Buffer.alloc(8), 8);
      resolve();
    });
  });
  signal(other);
  await told;
  expect(calls).toBe(1);
});
