// One supervisor per state folder. The lock is a listening abstract Unix socket: the kernel drops it
// with the process that holds it, however that ends, and a connection to it tells others when.

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

/** Resolves true when nobody holds the lock any more, false when `timeoutMs` passed before. */
export async function lockReleased(home: Home, timeoutMs: number): Promise<boolean> {
  const socket = net.connect({ path: lockName(home) });
  const { promise, resolve } = Promise.withResolvers<boolean>();
  socket.on("error", () => undefined);
  socket.on("close", () => resolve(true));
  socket.resume();
  const timer = setTimeout(() => resolve(false), timeoutMs);
  const released = await promise;
  clearTimeout(timer);
  socket.destroy();
  return released;
}
