// Tells an event loop when a descriptor becomes readable that Node cannot watch, where its own loop cannot
// be made to (loop-wake.ts): by one helper thread that blocks in poll(2). Each notification is for once,
// and asked for again.

import { Worker } from "node:worker_threads";
import { assert } from "../process/assert.ts";
import { call, callRaw } from "./libc.ts";

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const ONE = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);

/** Commands to the thread travel by message; this flag reaches it even while the process exits. */
export interface PollerInit {
  readonly wakeFd: number;
  readonly stop: Int32Array<SharedArrayBuffer>;
}

export type PollerCommand = { readonly arm: number } | { readonly disarm: number };

/** The thread is an isolate of its own, some 10 MiB. */
export class ThreadPoller {
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

  /** Calls `onReadable` once, when the descriptor can be read or has hung up. */
  once(fd: number, onReadable: () => void): void {
    assert(!this.#callbacks.has(fd), "a descriptor is watched once at a time");
    this.#callbacks.set(fd, onReadable);
    this.#worker.ref();
    this.#command({ arm: fd });
  }

  /** Must be called before a watched descriptor is closed. */
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
