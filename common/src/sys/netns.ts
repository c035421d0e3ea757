// Network namespaces: opening them, telling them apart, and running a few synchronous system calls
// inside one. A thread that cannot come back would open sockets in the wrong pod, so it aborts.

import { closeSync, fstatSync, openSync } from "node:fs";
import { call, callRaw } from "./libc.ts";
import { CLONE_NEWNET } from "./constants.ts";

/** An open network namespace. Inode and device identify it for as long as the handle is open. */
export interface NetnsHandle extends Disposable {
  readonly fd: number;
  readonly inode: bigint;
  readonly device: bigint;
  close(): void;
}

/** Opens a namespace by path: /run/netns/NAME or /proc/PID/ns/net. Throws Node's ENOENT, EACCES. */
export function openNetns(path: string): NetnsHandle {
  return netnsFromFd(openSync(path, "r"));
}

/** Adopts a descriptor, for instance one received over a Unix socket. */
export function netnsFromFd(fd: number): NetnsHandle {
  const { ino, dev } = fstatSync(fd, { bigint: true });
  let open = true;
  const close = () => {
    if (open) closeSync(fd);
    open = false;
  };
  return { fd, inode: ino, device: dev, close, [Symbol.dispose]: close };
}

/** A new, empty namespace, which ends with its last handle and socket. Throws SystemError without CAP_SYS_ADMIN. */
export function createNetns(): NetnsHandle {
  const home = ownNetns();
  call("unshare", "(needs CAP_SYS_ADMIN)", CLONE_NEWNET);
  try {
    return openNetns("/proc/thread-self/ns/net");
  } finally {
    if (callRaw("setns", home.fd, CLONE_NEWNET) !== 0) process.abort();
  }
}

export function sameNetns(a: NetnsHandle, b: NetnsHandle): boolean {
  return a.inode === b.inode && a.device === b.device;
}

/** This thread's own namespace, opened once per thread (namespaces belong to threads). */
let own: NetnsHandle | undefined;

/** It stays open. */
export function ownNetns(): NetnsHandle {
  own ??= openNetns("/proc/thread-self/ns/net");
  return own;
}

/**
 * Runs `action` with this thread inside the namespace; undefined means the thread's own.
 * `action` must be synchronous: another callback would otherwise run in the pod's namespace.
 * Throws SystemError when the namespace cannot be entered; aborts the process if it cannot be left.
 */
export function inNetns<T>(netnsFd: number | undefined, action: () => T): T {
  if (netnsFd === undefined) return action();
  const home = ownNetns();
  call("setns", `(needs CAP_SYS_ADMIN, fd ${netnsFd})`, netnsFd, CLONE_NEWNET);
  try {
    return action();
  } finally {
    if (callRaw("setns", home.fd, CLONE_NEWNET) !== 0) process.abort();
  }
}
