// The system calls of the byte path, each bound for itself. A call here costs a third of a microsecond
// more than the kernel's share, so: no list of arguments, and result types that are always a number
// (koffi gives `intptr_t` as a bigint when it is large). All return -1 on failure; `lastErrno` says why.

import koffi from "koffi";

const libc = koffi.load("libc.so.6");

type Descriptor = number;

/** Into memory by its address, which is a little cheaper than by a Buffer: for memory that stays. */
export const recvAt: (fd: Descriptor, address: number, bytes: number, flags: number) => number =
  libc.func("int recv(int fd, uintptr_t address, size_t bytes, int flags)");

export const send: (fd: Descriptor, from: Uint8Array, bytes: number, flags: number) => number =
  libc.func("int send(int fd, const void *from, size_t bytes, int flags)");

export const shutdown: (fd: Descriptor, how: number) => number = libc.func(
  "int shutdown(int fd, int how)",
);

export const close: (fd: Descriptor) => number = libc.func("int close(int fd)");

/** Without the peer's address: few want to know it, and can ask later. */
export const accept4: (fd: Descriptor, peer: null, bytes: null, flags: number) => number =
  libc.func("int accept4(int fd, void *peer, void *bytes, int flags)");

export const epollCtl: (
  epoll: Descriptor,
  operation: number,
  fd: Descriptor,
  event: Uint8Array | null,
) => number = libc.func("int epoll_ctl(int epoll, int operation, int fd, void *event)");

export const epollWait: (
  epoll: Descriptor,
  eventsAddress: number,
  eventsMax: number,
  timeoutMs: number,
) => number = libc.func(
  "int epoll_wait(int epoll, uintptr_t events, int eventsMax, int timeoutMs)",
);
