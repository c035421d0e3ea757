// The kernel's number for a network namespace (Linux 5.14 and later): never used again while the kernel
// runs, unlike inodes, and what BPF programs see of a socket's namespace.

import * as linux from "./constants.ts";
import { call, closeFd } from "./libc.ts";
import { inNetns } from "./netns.ts";
import { netnsCookie } from "./sockets.ts";

/** The namespace's cookie; undefined asks for this thread's own. Throws SystemError: ENOPROTOOPT before 5.14. */
export function cookieOfNetns(netnsFd: number | undefined): bigint {
  const type = linux.SOCK_DGRAM | linux.SOCK_CLOEXEC;
  const fd = inNetns(netnsFd, () => call("socket", "", linux.AF_INET, type, 0));
  try {
    return netnsCookie(fd);
  } finally {
    closeFd(fd);
  }
}
