// Finding a pod's network namespace. One interface; the local runtime names it in an annotation, on
// Kubernetes it is found through the pod's processes.

import { readFileSync } from "node:fs";
import { type Ip, ipFromBytes, parseIp } from "@ambit/common/net/ip.ts";
import { inNetns, type NetnsHandle } from "@ambit/common/sys/netns.ts";
import type { PodView } from "../mesh/pod-view.ts";

export interface NetnsFinder {
  /** An open handle, the caller's to close; undefined when there is none (yet). Never throws for that. */
  find(pod: PodView): NetnsHandle | undefined;
}

/** The first finder that knows the pod. */
export function firstOf(...finders: readonly NetnsFinder[]): NetnsFinder {
  return {
    find(pod) {
      for (const finder of finders) {
        const found = finder.find(pod);
        if (found !== undefined) return found;
      }
      return undefined;
    },
  };
}

/**
 * Whether one of a pod's addresses lives in a namespace: a passing process may be in any. Read from
 * /proc, since os.networkInterfaces leaves out interfaces whose carrier has not been noticed yet.
 */
export function ownsAddress(netns: NetnsHandle, ips: readonly Ip[]): boolean {
  const addresses = inNetns(netns.fd, () => [
    ...localIpv4(readProc("fib_trie")),
    ...localIpv6(readProc("if_inet6")),
  ]);
  return addresses.some((ip) => ips.includes(ip));
}

/** thread-self: the thread is in the namespace, the process is not. Empty when the family is off. */
function readProc(file: string): string {
  try {
    return readFileSync(`/proc/thread-self/net/${file}`, "utf8");
  } catch {
    return "";
  }
}

/** Addresses that fib_trie calls "/32 host LOCAL". */
function localIpv4(text: string): Ip[] {
  const found = text.matchAll(/\|-- ([0-9.]+)\n\s+\/32 host LOCAL/g);
  return [...found].flatMap(([, address = ""]) => parseIp(address) ?? []);
}

/** if_inet6: 32 hex digits start each line. */
function localIpv6(text: string): Ip[] {
  const lines = text.split("\n").filter((line) => /^[0-9a-f]{32} /.test(line));
  return lines.flatMap((line) => ipFromBytes(Buffer.from(line.slice(0, 32), "hex")) ?? []);
}
