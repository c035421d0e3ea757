// The loop's promises to its targets: what each hears, in which order, and what it never hears.

import { afterEach, expect, it } from "vitest";
import { EPOLLET, EPOLLIN, FdLoop } from "./fd-loop.ts";
import { call, closeFd } from "./libc.ts";
import { handleWake } from "./loop-wake.ts";
import { uncaught } from "../testing/uncaught.ts";

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const ONE = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);

const opened = new Set<number>();
afterEach(() => {
  opened.forEach(closeFd);
  opened.clear();
});

function eventFd(): number {
  const fd = call("eventfd", "", 0, EFD_NONBLOCK | EFD_CLOEXEC);
  opened.add(fd);
  return fd;
}

function close(fd: number): void {
  opened.delete(fd);
  closeFd(fd);
}

function signal(...fds: number[]): void {
  for (const fd of fds) call("write", "eventfd", fd, ONE, ONE.length);
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

it("knows the handle of the Node this project asks for", () => {
  expect(handleWake()).toBeDefined();
});

it("tells all that are ready in one call, and each of what is new only once", async () => {
  const loop = new FdLoop();
  const heard: string[] = [];
  const target = (name: string) => ({ onReady: () => void heard.push(name) });
  const [a, b] = [eventFd(), eventFd()];
  loop.add(a, EPOLLIN | EPOLLET, target("a"));
  loop.add(b, EPOLLIN | EPOLLET, target("b"));
  signal(a, b);
  await expect.poll(() => heard).toEqual(["a", "b"]);
  await turn();
  signal(b);
  await expect.poll(() => heard).toEqual(["a", "b", "b"]);
});

it("lets no late event reach a target that has the descriptor and the slot of another", async () => {
  const loop = new FdLoop();
  const heard: string[] = [];
  const fds = [eventFd(), eventFd()];
  const slots = fds.map((fd, i) =>
    loop.add(fd, EPOLLIN | EPOLLET, {
      onReady: () => {
        heard.push(`old ${i}`);
        const other = 1 - i;
        loop.remove(slots[other]!);
        close(fds[other]!);
        const reopened = eventFd();
        expect(reopened).toBe(fds[other]);
        const slot = loop.add(reopened, EPOLLIN | EPOLLET, { onReady: () => heard.push("new") });
        expect(slot).toBe(slots[other]);
      },
    }),
  );
  signal(...fds);
  await expect.poll(() => heard).toEqual(["old 0"]);
  await turn();
  await turn();
  expect(heard).toEqual(["old 0"]);
});

it("makes what a target throws an uncaught exception, and tells the others all the same", async () => {
  const loop = new FdLoop();
  const heard: string[] = [];
  const fds = [eventFd(), eventFd(), eventFd()];
  fds.forEach((fd, i) =>
    loop.add(fd, EPOLLIN | EPOLLET, {
      onReady: () => {
        heard.push(`${i}`);
        if (i < 2) throw new Error(`of ${i}`);
      },
    }),
  );
  using errors = uncaught();
  signal(...fds);
  await expect.poll(() => errors.messages).toEqual(["of 0", "of 1"]);
  expect(heard).toEqual(["0", "1", "2"]);
});

it("calls those who ask for it after the others, each time once, and never at once", async () => {
  const loop = new FdLoop();
  const heard: string[] = [];
  const [a, b] = [eventFd(), eventFd()];
  const asking = {
    onReady: (events: number) => {
      heard.push(events === 0 ? "soon" : "a");
      if (heard.length < 4) loop.soon(asking);
    },
  };
  loop.add(a, EPOLLIN | EPOLLET, asking);
  loop.add(b, EPOLLIN | EPOLLET, { onReady: () => void heard.push("b") });
  signal(a, b);
  await expect.poll(() => heard).toEqual(["a", "b", "soon", "soon"]);
  loop.soon(asking);
  expect(heard).toHaveLength(4);
  await turn();
  expect(heard).toHaveLength(5);
});

it("has promises settle after each wake, before the next turn", async () => {
  const loop = new FdLoop();
  const heard: string[] = [];
  const fd = eventFd();
  const told = new Promise<void>((resolve) => {
    loop.add(fd, EPOLLIN | EPOLLET, {
      onReady: () => {
        setImmediate(() => {
          heard.push("next turn");
          resolve();
        });
        void Promise.resolve().then(() => heard.push("promise"));
        process.nextTick(() => heard.push("tick"));
      },
    });
  });
  signal(fd);
  await told;
  expect(heard).toEqual(["tick", "promise", "next turn"]);
});

it("forgets a descriptor that stays open", async () => {
  const loop = new FdLoop();
  const heard: string[] = [];
  const [a, b] = [eventFd(), eventFd()];
  const slot = loop.add(a, EPOLLIN, { onReady: () => void heard.push("a") });
  loop.unwatch(a, slot);
  expect(loop.size).toBe(0);
  loop.add(b, EPOLLIN | EPOLLET, { onReady: () => void heard.push("b") });
  signal(a, b);
  await expect.poll(() => heard).toEqual(["b"]);
});

it("says which descriptor cannot be watched", () => {
  const loop = new FdLoop();
  const fd = eventFd();
  close(fd);
  expect(() => loop.add(fd, EPOLLIN, { onReady: () => undefined })).toThrow(
    `epoll_ctl of descriptor ${fd}: EBADF`,
  );
  expect(loop.size).toBe(0);
});
