// Node's event loop as a poller of any descriptor. libuv takes only what it knows how to read; an epoll
// instance it takes for a socket, finds it readable when what it watches is, and fails to read it with
// EINVAL, which is the notification. The handle is of no use after that, so each is for one.

import { assert } from "../process/assert.ts";
import type { FdPoller } from "./fd-poller.ts";
import { call, closeFd, SystemError } from "./libc.ts";
import type { NodeHandles, TcpHandle } from "./node-handles.ts";

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLLIN = 1;
/** struct epoll_event, on the machines where it is not packed; of the rest nothing is used. */
const EVENT_BYTES = 16;

const READABLE = Buffer.alloc(EVENT_BYTES);
READABLE.writeUInt32LE(EPOLLIN);

export class HandlePoller implements FdPoller {
  readonly #newHandle: () => TcpHandle;
  readonly #watching = new Map<number, TcpHandle>();

  constructor({ newTcp }: Pick<NodeHandles, "newTcp">) {
    this.#newHandle = newTcp;
  }

  once(fd: number, onReadable: () => void): void {
    assert(!this.#watching.has(fd), "a descriptor is watched once at a time");
    const handle = this.#newHandle();
    open(handle, fd);
    const notify = () => {
      this.forget(fd);
      onReadable();
    };
    handle.onread = notify;
    handle.readStart();
    this.#watching.set(fd, handle);
  }

  forget(fd: number): void {
    this.#watching.get(fd)?.close();
    this.#watching.delete(fd);
  }
}

/** Has the handle own a new epoll instance that watches the descriptor. */
function open(handle: TcpHandle, fd: number): void {
  const epoll = call("epoll_create1", "", EPOLL_CLOEXEC);
  try {
    call("epoll_ctl", `of descriptor ${fd}`, epoll, EPOLL_CTL_ADD, fd, READABLE);
    const status = handle.open(epoll);
    if (status < 0) throw new SystemError("uv_tcp_open", -status, "of an epoll instance");
  } catch (error) {
    closeFd(epoll);
    handle.close();
    throw error;
  }
}
