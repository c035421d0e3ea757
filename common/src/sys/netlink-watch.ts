// Hears when somebody changes a network namespace: its nftables rules, its routes and routing rules.
// The kernel tells every subscriber of a netlink group; what it says is not read, only that it spoke.

import * as linux from "./constants.ts";
import { type FdWatch, watchFd } from "./watch-fd.ts";
import { call, callRaw, closeFd } from "./libc.ts";
import { inNetns } from "./netns.ts";

/** Bit masks of multicast groups, by netlink family (linux/rtnetlink.h, linux/netfilter/nfnetlink.h). */
const SUBSCRIPTIONS = {
  rules: { protocol: linux.NETLINK_NETFILTER, groups: 1 << (linux.NFNLGRP_NFTABLES - 1) },
  routes: {
    protocol: linux.NETLINK_ROUTE,
    groups:
      (1 << (linux.RTNLGRP_IPV4_ROUTE - 1)) |
      (1 << (linux.RTNLGRP_IPV4_RULE - 1)) |
      (1 << (linux.RTNLGRP_IPV6_ROUTE - 1)) |
      (1 << (linux.RTNLGRP_IPV6_RULE - 1)),
  },
} as const;

export type Watched = keyof typeof SUBSCRIPTIONS;

const SOCKADDR_NL_BYTES = 12;

/** Notifications fit many times; what does not fit is cut, and nobody misses it. */
const SCRATCH_BYTES = 4096;

/** Reads per wake-up: a flood is left to the next one, so that others get their turn. */
const READS_MAX = 256;

/**
 * Calls `onChange` after changes in the namespace, one call for many at once. iptables' nft variant
 * is heard too, its legacy variant is not. Throws SystemError: EPERM without CAP_NET_ADMIN there.
 */
export function watchNetns(netnsFd: number, what: Watched, onChange: () => void): FdWatch {
  const fd = inNetns(netnsFd, () => subscribe(SUBSCRIPTIONS[what]));
  const scratch = Buffer.alloc(SCRATCH_BYTES);
  return watchFd(fd, () => {
    for (let i = 0; i < READS_MAX; i++) if (callRaw("read", fd, scratch, scratch.length) < 0) break;
    onChange();
  });
}

function subscribe({ protocol, groups }: { protocol: number; groups: number }): number {
  const type = linux.SOCK_RAW | linux.SOCK_NONBLOCK | linux.SOCK_CLOEXEC;
  const fd = call("socket", "NETLINK", linux.AF_NETLINK, type, protocol);
  const address = Buffer.alloc(SOCKADDR_NL_BYTES);
  address.writeUInt16LE(linux.AF_NETLINK, 0);
  address.writeUInt32LE(groups, 8);
  try {
    call("bind", "netlink groups", fd, address, address.length);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}
