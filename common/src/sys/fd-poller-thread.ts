// The thread behind fd-poller: blocks in poll(2) over an eventfd and the armed descriptors.

import { flushCompileCache } from "node:module";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { assert } from "../process/assert.ts";
import type { PollerCommand, PollerInit } from "./fd-poller.ts";
import { callRaw } from "./libc.ts";

const POLLIN = 1;
const POLLFD_BYTES = 8;
/** Only a safety net: commands and exits wake the thread by the eventfd. */
const POLL_TIMEOUT_MS = 60_000;

assert(parentPort !== null, "the poller runs as a worker thread");
const port = parentPort;
const { wakeFd, stop } = workerData as PollerInit;
const armed = new Set<number>();
const counter = Buffer.alloc(8);

function takeCommands(): void {
  for (let received = receiveMessageOnPort(port); received; received = receiveMessageOnPort(port)) {
    const command = received.message as PollerCommand;
    if ("arm" in command) armed.add(command.arm);
    else armed.delete(command.disarm);
  }
}

function pollOnce(): void {
  const fds = [wakeFd, ...armed];
  const table = Buffer.alloc(fds.length * POLLFD_BYTES);
  fds.forEach((fd, i) => {
    table.writeInt32LE(fd, i * POLLFD_BYTES);
    table.writeInt16LE(POLLIN, i * POLLFD_BYTES + 4);
  });
  if (callRaw("poll", table, fds.length, POLL_TIMEOUT_MS) <= 0) return;
  fds.forEach((fd, i) => {
    if (table.readInt16LE(i * POLLFD_BYTES + 6) === 0) return;
    if (fd === wakeFd) callRaw("read", wakeFd, counter, counter.length);
    else {
      armed.delete(fd);
      port.postMessage(fd);
    }
  });
}

// The loop is left only by the end of the process, when it would be too late.
flushCompileCache();
while (Atomics.load(stop, 0) === 0) {
  takeCommands();
  pollOnce();
}
