// Tells an event loop when a descriptor that Node cannot watch (a SEQPACKET socket) becomes readable: by
// Node's own loop where its handles are as we know them (handle-poller.ts), or else by one helper thread
// that blocks in poll(2) for all of them. Each notification is for once, and asked for again.

import { Worker } from "node:worker_threads";
import { assert } from "../process/assert.ts";
import { HandlePoller } from "./handle-poller.ts";
import { call, callRaw, closeFd } from "./libc.ts";
import { nodeHandles } from "./node-handles.ts";

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const ONE = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);

/** Commands to the thread travel by message; this flag reaches it even while the process exits. */
export interface PollerInit {
  readonly wakeFd: number;
  readonly stop: Int32Array<SharedArrayBuffer>;
}

export type PollerCommand = { readonly arm: number } | { readonly disarm: number };

export interface FdPoller {
  /** Calls `onReadable` once, when the descriptor can be read or has hung up. */
  once(fd: number, onReadable: () => void): void;
  /** Must be called before a watched descriptor is closed. */
  forget(fd: number): void;
}

/** The thread is an isolate of its own, some 10 MiB. */
export class ThreadPoller implements FdPoller {
  readonly #wakeFd = call("eventfd", "", 0, EFD_NONBLOCK | EFD_CLOEXEC);
  readonly #stop = new Int32Array(new SharedArrayBuffer(4));
  readonly #callbacks = new Map<number, () => void>();
  readonly #worker: Worker;

  constructor() {
    const init: PollerInit = { wakeFd: this.#wakeFd, stop: this.#stop };
    this.#worker = new Worker(new URL("./fd-poller-thread.ts", import.meta.url), {
      workerData: init,
      name: "fd-poller",
    });
    this.#worker.on("message", (fd: number) => this.#onReadable(fd));
    this.#worker.unref();
    process.once("exit", () => {
      Atomics.store(this.#stop, 0, 1);
      callRaw("write", this.#wakeFd, ONE, ONE.length);
    });
  }

  once(fd: number, onReadable: () => void): void {
    assert(!this.#callbacks.has(fd), "a descriptor is watched once at a time");
    this.#callbacks.set(fd, onReadable);
    this.#worker.ref();
    this.#command({ arm: fd });
  }

  forget(fd: number): void {
    if (this.#callbacks.delete(fd)) this.#command({ disarm: fd });
    if (this.#callbacks.size === 0) this.#worker.unref();
  }

  #onReadable(fd: number): void {
    const callback = this.#callbacks.get(fd);
    this.#callbacks.delete(fd);
    if (this.#callbacks.size === 0) this.#worker.unref();
    callback?.();
  }

  #command(command: PollerCommand): void {
    this.#worker.postMessage(command);
    callRaw("write", this.#wakeFd, ONE, ONE.length);
  }
}

let shared: FdPoller | undefined;

/** The poller of this thread, started at first use. */
function fdPoller(): FdPoller {
  shared ??= nodeHandles === undefined ? new ThreadPoller() : new HandlePoller(nodeHandles);
  return shared;
}

export interface FdWatch {
  readonly closed: boolean;
  /** Ends the watch and closes the descriptor; idempotent. */
  close(): void;
}

/** Takes over a descriptor: calls `onReadable` whenever it can be read, or has hung up, until it is closed. */
export function watchFd(
  fd: number,
  onReadable: () => void,
  poller: FdPoller = fdPoller(),
): FdWatch {
  let closed = false;
  const onEvent = () => {
    try {
      onReadable();
    } finally {
      if (!closed) poller.once(fd, onEvent);
    }
  };
  poller.once(fd, onEvent);
  return {
    get closed() {
      return closed;
    },
    close: () => {
      if (closed) return;
      closed = true;
      poller.forget(fd);
      closeFd(fd);
    },
  };
}
