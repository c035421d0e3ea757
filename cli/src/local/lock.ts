// One supervisor per state folder. The lock is a listening abstract Unix socket: the kernel drops it
// with the process that holds it, however that ends. A connection to it says who that process is, and
// ends when the lock is free again.

import { createHash } from "node:crypto";
import { once } from "node:events";
import net from "node:net";
import { errorCode } from "@ambit/common/process/errors.ts";
import type { Home } from "./home.ts";

function lockName(home: Home): string {
  return `\0ambit-local-${createHash("sha256").update(home.root).digest("hex").slice(0, 32)}`;
}

export interface Lock {
  release(): void;
}

/** Takes the lock, or returns undefined when another process has it. */
export async function takeLock(home: Home): Promise<Lock | undefined> {
  const watchers = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    watchers.add(socket);
    socket.unref();
    socket.on("error", () => undefined);
    socket.on("close", () => watchers.delete(socket));
    socket.write(`${process.pid}\n`);
  });
  try {
    server.listen({ path: lockName(home) });
    await once(server, "listening");
  } catch (error) {
    if (errorCode(error) === "EADDRINUSE") return undefined;
    throw error;
  }
  server.unref();
  return {
    release: () => {
      server.close();
      for (const socket of watchers) socket.destroy();
    },
  };
}

/** The process that holds the lock, and its end. */
export interface LockHolder {
  readonly pid: number;
  /** Resolves true when it has let go, false when `timeoutMs` passed before. */
  released(timeoutMs: number): Promise<boolean>;
}

/** Who holds the lock; undefined when nobody does. */
export async function findLockHolder(home: Home): Promise<LockHolder | undefined> {
  const socket = net.connect({ path: lockName(home) });
  const introduced = Promise.withResolvers<number | undefined>();
  const closed = Promise.withResolvers<true>();
  socket.on("error", () => undefined);
  socket.on("data", (data) => introduced.resolve(Number(data.toString())));
  socket.on("close", () => {
    introduced.resolve(undefined);
    closed.resolve(true);
  });
  const pid = await introduced.promise;
  if (pid === undefined) return undefined;
  socket.unref(); // Only who waits for the end is held up by it.
  return {
    pid,
    released: async (timeoutMs) => {
      const { promise: late, resolve } = Promise.withResolvers<false>();
      const timer = setTimeout(() => resolve(false), timeoutMs);
      const released = await Promise.race([closed.promise, late]);
      clearTimeout(timer);
      return released;
    },
  };
}
