// Notices that somebody changed nftables rules (iptables' nft variant included), routes or routing
// rules in a pod's namespace.

import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { watchNetns } from "@ambit/common/sys/netlink-watch.ts";
import type { RulesWatch } from "./backend.ts";

/** Throws SystemError when the kernel does not allow it. */
export function watchPod(netns: NetnsHandle, onChange: () => void): RulesWatch {
  const watches: RulesWatch[] = [];
  const close = () => {
    for (const watch of watches.splice(0)) watch.close();
  };
  try {
    for (const what of ["rules", "routes"] as const) {
      watches.push(watchNetns(netns.fd, what, onChange));
    }
  } catch (error) {
    close();
    throw error;
  }
  return { close };
}
