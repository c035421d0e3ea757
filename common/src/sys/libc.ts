// The system calls Node does not offer, bound once through koffi, which nothing outside this folder
// imports. Every wrapper throws a SystemError that carries errno's name and the call.

import { constants as osConstants } from "node:os";
import koffi from "koffi";

const libc = koffi.load("libc.so.6");

const bindings = {
  setns: libc.func("int setns(int fd, int nstype)"),
  socket: libc.func("int socket(int domain, int type, int protocol)"),
  bind: libc.func("int bind(int fd, const void *addr, uint32_t len)"),
  listen: libc.func("int listen(int fd, int backlog)"),
  accept4: libc.func("int accept4(int fd, void *addr, void *len, int flags)"),
  connect: libc.func("int connect(int fd, const void *addr, uint32_t len)"),
  close: libc.func("int close(int fd)"),
  getsockname: libc.func("int getsockname(int fd, void *addr, void *len)"),
  getpeername: libc.func("int getpeername(int fd, void *addr, void *len)"),
  getsockopt: libc.func("int getsockopt(int fd, int level, int name, void *value, void *len)"),
  setsockopt: libc.func(
    "int setsockopt(int fd, int level, int name, const void *value, uint32_t len)",
  ),
  sendmsg: libc.func("intptr_t sendmsg(int fd, const void *msg, int flags)"),
  recvmsg: libc.func("intptr_t recvmsg(int fd, void *msg, int flags)"),
  poll: libc.func("int poll(void *fds, unsigned long count, int timeout)"),
  eventfd: libc.func("int eventfd(unsigned int initval, int flags)"),
  epoll_create1: libc.func("int epoll_create1(int flags)"),
  epoll_ctl: libc.func("int epoll_ctl(int epfd, int op, int fd, const void *event)"),
  send: libc.func("intptr_t send(int fd, const void *buf, size_t count, int flags)"),
  recv: libc.func("intptr_t recv(int fd, void *buf, size_t count, int flags)"),
  read: libc.func("intptr_t read(int fd, void *buf, size_t count)"),
  write: libc.func("intptr_t write(int fd, const void *buf, size_t count)"),
  dup3: libc.func("int dup3(int oldfd, int newfd, int flags)"),
  fcntl: libc.func("int fcntl(int fd, int cmd, int arg)"),
  shutdown: libc.func("int shutdown(int fd, int how)"),
  unshare: libc.func("int unshare(int flags)"),
} satisfies Record<string, (...args: never[]) => unknown>;

export type SystemCall = keyof typeof bindings;

const ERRNO_NAMES = new Map<number, string>(
  Object.entries(osConstants.errno).map(([name, number]) => [number, name]),
);

/** A failed system call: `code` is errno's name, as on Node's own errors. */
export class SystemError extends Error {
  override readonly name = "SystemError";
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number, detail = "") {
    const code = ERRNO_NAMES.get(errno) ?? `errno ${errno}`;
    super(`${syscall}${detail && ` ${detail}`}: ${code}`);
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

type Argument = number | Uint8Array | null;

/** Calls a binding; returns its result when ≥ 0, throws SystemError otherwise. */
export function call(name: SystemCall, detail: string, ...args: Argument[]): number {
  const result = callRaw(name, ...args);
  if (result < 0) throw new SystemError(name, koffi.errno(), detail);
  return result;
}

/** Calls a binding and returns its bare result; read errno with `lastErrno` right after. */
export function callRaw(name: SystemCall, ...args: Argument[]): number {
  const binding = bindings[name] as (...args: Argument[]) => number | bigint;
  return Number(binding(...args));
}

const syscall4 = libc.func("intptr_t syscall(intptr_t number, int a, void *b, unsigned int c)");

/** bpf(2), which the C library does not wrap. Throws SystemError. */
export function callBpf(number: number, command: number, what: string, attr: Uint8Array): number {
  const result = Number(syscall4(number, command, attr, attr.length));
  if (result < 0) throw new SystemError("bpf", koffi.errno(), what);
  return result;
}

const syscall6 = libc.func(
  "intptr_t syscall(intptr_t number, intptr_t a, intptr_t b, intptr_t c, intptr_t d, intptr_t e, intptr_t f)",
);

/**
 * A system call by its number, which the C library does not wrap; pointers by addressOf. Throws
 * SystemError.
 */
export function callNumber(number: number, name: string, ...args: (number | bigint)[]): number {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = args;
  const result = Number(syscall6(number, a, b, c, d, e, f));
  if (result < 0) throw new SystemError(name, koffi.errno());
  return result;
}

const mount = libc.func(
  "int mount(const char *source, const char *target, const char *type, unsigned long f, void *data)",
);

/** Mounts a file system without options. Throws SystemError. */
export function callMount(source: string, target: string, type: string): void {
  if (mount(source, target, type, 0, null) !== 0)
    throw new SystemError("mount", koffi.errno(), target);
}

const mmap = libc.func(
  "void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)",
);
const munmap = libc.func("int munmap(void *address, size_t length)");
const sysconf = libc.func("long sysconf(int name)");
const SC_PAGESIZE = 30;

/** The kernel's page size. */
export function pageBytes(): number {
  return Number(sysconf(SC_PAGESIZE));
}

/** Memory shared with the kernel. Nothing may read `bytes` after `unmap`. */
export interface MappedMemory {
  readonly bytes: ArrayBuffer;
  unmap(): void;
}

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
/** What mmap returns when it fails, as an address. */
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** Maps `length` bytes of a descriptor from `offset` on; both are multiples of a page. Throws SystemError. */
export function mapMemory(
  fd: number,
  offset: number,
  length: number,
  access: "read" | "write",
): MappedMemory {
  const protection = access === "read" ? PROT_READ : PROT_READ | PROT_WRITE;
  const address: unknown = mmap(null, length, protection, MAP_SHARED, fd, offset);
  if (koffi.address(address) === MAP_FAILED) throw new SystemError("mmap", koffi.errno());
  return {
    bytes: koffi.view(address, length),
    unmap: () => void munmap(address, length),
  };
}

const umount2 = libc.func("int umount2(const char *target, int flags)");
const MNT_DETACH = 2;

/** Takes a mount away, and at once, also while it is in use. Throws SystemError. */
export function callUnmount(target: string): void {
  if (umount2(target, MNT_DETACH) !== 0) throw new SystemError("umount", koffi.errno(), target);
}

export function lastErrno(): number {
  return koffi.errno();
}

/** The address of a buffer, for structures that hold pointers. The buffer must outlive the call. */
export function addressOf(buffer: Uint8Array): bigint {
  return koffi.address(buffer);
}

const mallocTrim = libc.func("int malloc_trim(size_t pad)");

/** Gives the C heap's free pages back to the kernel. */
export function trimHeap(): void {
  mallocTrim(0);
}

/** Closes a descriptor that is known to be open; EINTR counts as closed (Linux frees it anyway). */
export function closeFd(fd: number): void {
  callRaw("close", fd);
}
