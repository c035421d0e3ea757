import { once } from "node:events";
import { fstatSync } from "node:fs";
import net from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { parseIp } from "../net/ip.ts";
import { SCRATCH_BYTES } from "../net/scratch.ts";
import { FdLoop } from "./fd-loop.ts";
import { FdSocket } from "./fd-socket.ts";
import { call, callRaw } from "./libc.ts";
import { handleWake, threadWake } from "./loop-wake.ts";
import { openDialSocket, startConnect } from "./sockets.ts";
import { type FdWatch, watchFd } from "./watch-fd.ts";

/** Each read takes one signal. */
const EFD_SEMAPHORE = 1;
const EFD_NONBLOCK = 0o4000;
const ONE = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);

let watch: FdWatch | undefined;
afterEach(() => watch?.close());

function signal(fd: number): void {
  call("write", "eventfd", fd, ONE, ONE.length);
}

describe.each([
  ["the event loop", new FdLoop(handleWake())],
  ["a thread", new FdLoop(threadWake)],
])("a descriptor watched by %s", (_, loop) => {
  it("tells each time that a descriptor can be read", async () => {
    const fd = call("eventfd", "", 0, EFD_NONBLOCK);
    let wake = () => {};
    watch = watchFd(
      fd,
      () => {
        callRaw("read", fd, Buffer.alloc(8), 8);
        wake();
      },
      loop,
    );
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
    const closing = watchFd(
      fd,
      () => {
        calls++;
        closing.close();
      },
      loop,
    );
    signal(fd);
    await expect.poll(() => closing.closed).toBe(true);
    closing.close();
    expect(() => fstatSync(fd)).toThrow(/EBADF/);
    const told = new Promise<void>((resolve) => {
      watch = watchFd(
        other,
        () => {
          callRaw("read", other, Buffer.alloc(8), 8);
          resolve();
        },
        loop,
      );
    });
    signal(other);
    await told;
    expect(calls).toBe(1);
  });

  it("is told of again while it can still be read", async () => {
    const fd = call("eventfd", "", 0, EFD_NONBLOCK | EFD_SEMAPHORE);
    let reads = 0;
    const readTwice = new Promise<void>((resolve) => {
      const onReadable = () => {
        callRaw("read", fd, Buffer.alloc(8), 8);
        if (++reads === 2) resolve();
      };
      watch = watchFd(fd, onReadable, loop);
    });
    signal(fd);
    signal(fd);
    await readTwice;
  });

  it("is a socket's that reads, writes and ends like any other", async () => {
    const server = net.createServer({ allowHalfOpen: true }, (peer) => peer.pipe(peer));
    await once(server.listen(0, "127.0.0.1"), "listening");
    const { port } = server.address() as net.AddressInfo;
    const fd = openDialSocket(4, {});
    expect(startConnect(fd, { ip: parseIp("127.0.0.1")!, port })).toBe(0);
    const socket = new FdSocket(fd, loop);
    const payload = Buffer.alloc(20 * SCRATCH_BYTES, "0123456789abcdef-");
    const chunks: Buffer[] = [];
    const closed = new Promise<Error | undefined>((resolve) => {
      socket.handler = {
        onBytes: (bytes) => void chunks.push(Buffer.from(bytes)),
        onEnd: () => undefined,
        onWritable: () => socket.end(),
        onClose: resolve,
      };
    });
    socket.resume();
    expect(socket.write(payload)).toBe(false);
    expect(await closed).toBeUndefined();
    expect(Buffer.concat(chunks).equals(payload)).toBe(true);
    server.close();
  });
});
