// The loop's promises to its targets: what each hears, in which order, and what it never hears.

import { afterEach, describe, expect, it } from "vitest";
import { atTurnEnd } from "../process/turn-end.ts";
import { EPOLLET, EPOLLIN, FdLoop, STAY_MS } from "./fd-loop.ts";
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

/** One descriptor that is ready again and again; says how often it was by the time `stop` is called. */
function keepBusy(loop: FdLoop, step: (nth: number, stop: () => void) => void): Promise<number> {
  const fd = eventFd();
  const { promise, resolve } = Promise.withResolvers<number>();
  let nth = 0;
  let stopped = false;
  const stop = () => {
    stopped = true;
    resolve(nth);
  };
  loop.add(fd, EPOLLIN | EPOLLET, {
    onReady: () => {
      if (stopped) return;
      step(++nth, stop);
      signal(fd);
    },
  });
  signal(fd);
  return promise;
}

describe("a loop whose descriptors are ready again and again", () => {
  it("waits for them itself, and leaves Node its turn now and then", async () => {
    const startMs = performance.now();
    const times = await keepBusy(new FdLoop(), (nth, stop) => {
      if (nth === 2) setImmediate(stop);
    });
    expect(times).toBeGreaterThan(50);
    expect(performance.now() - startMs).toBeGreaterThanOrEqual(STAY_MS);
  });

  it("leaves Node its turn at once for a descriptor that it is told to heed", async () => {
    const loop = new FdLoop();
    const heeded = eventFd();
    using _ = loop.heed(heeded);
    const times = await keepBusy(loop, (nth, stop) => {
      if (nth !== 10) return;
      setImmediate(stop);
      signal(heeded);
    });
    expect(times).toBe(11);
  });

  it("settles promises after each wake, and then does what was put off to its end", async () => {
    const heard: string[] = [];
    await keepBusy(new FdLoop(), (nth, stop) => {
      if (nth > 3) return stop();
      heard.push(`${nth}`);
      atTurnEnd(() => {
        heard.push("end");
        void Promise.resolve().then(() => heard.push("promise of the end"));
      });
      void Promise.resolve().then(() => heard.push("promise"));
    });
    const each = (nth: number) => [`${nth}`, "promise", "end", "promise of the end"];
    expect(heard).toEqual([...each(1), ...each(2), ...each(3)]);
  });

  it("goes on after an uncaught exception, and does what was put off", async () => {
    using errors = uncaught();
    let put = 0;
    await keepBusy(new FdLoop(), (nth, stop) => {
      if (nth > 6) return stop();
      atTurnEnd(() => put++);
      if (nth % 2 === 0) process.nextTick(() => throwing(nth));
    });
    await expect.poll(() => put).toBe(6);
    expect(errors.messages).toEqual(["of 2", "of 4", "of 6"]);
  });

  it("counts how long it has waited, which Node takes for work", async () => {
    const loop = new FdLoop();
    const before = performance.eventLoopUtilization();
    const shared = new Float64Array(new SharedArrayBuffer(8));
    loop.countWaits(shared);
    await keepBusy(loop, (nth, stop) => {
      if (nth === 3) stop();
    });
    await expect.poll(() => shared[0]).toBeGreaterThan(STAY_MS - 1);
    expect(loop.waitedMs).toBe(shared[0]);
    expect(performance.eventLoopUtilization(before).active).toBeGreaterThan(loop.waitedMs);
  });
});

function throwing(nth: number): never {
  throw new Error(`of ${nth}`);
}
