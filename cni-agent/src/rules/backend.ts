// What a redirection backend does: nftables, iptables and eBPF each do it their way.
// A backend owns what it puts into the kernel and nothing in memory: any call may follow a crash.

import type { Ip } from "@ambit/common/net/ip.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";

/** How one pod's traffic is captured. */
export interface PodRedirection {
  readonly dnsCapture: boolean;
  /** False when only outbound traffic is captured (ambient.istio.io/bypass-inbound-capture). */
  readonly inboundCapture: boolean;
  /** Interfaces whose arrivals count as outbound (istio.io/reroute-virtual-interfaces). */
  readonly virtualInterfaces: readonly string[];
  readonly ipv6: boolean;
}

export type RulesState = "ok" | "drifted" | "absent";

/** Whose address it is that kubelet may probe. */
export interface ProbeTarget {
  readonly uid: string;
  /** The slot that captures the pod's traffic; absent where addresses are translated. */
  readonly slot?: number | undefined;
}

/** Addresses of enrolled pods. */
export type ProbeTargets = ReadonlyMap<Ip, ProbeTarget>;

/** Ends with `close`, which is idempotent. */
export interface RulesWatch {
  close(): void;
}

/** What translation needs to know of the node. */
export interface TranslationOptions {
  /** The node's own namespace; undefined when the agent already runs in it. */
  readonly hostNetns: NetnsHandle | undefined;
  /** Whose sockets on the node are probes; undefined means all of the node's sockets. */
  readonly probeUid: number | undefined;
}

/** A backend that rewrites destinations, which needs its rules for as long as a connection lasts. */
export interface TranslatingBackend extends RedirectionBackend {
  /** Whether rules of ours are in the pod. */
  isPresent(netns: NetnsHandle): Promise<boolean>;
  /** Takes the rules out, which ends what is still translated; the routes stay. */
  removeRules(netns: NetnsHandle): Promise<void>;
}

/** All methods are idempotent and reject with AgentError. */
export interface RedirectionBackend {
  readonly name: string;
  /** Puts the wanted state in place, whatever was there; traffic never passes between old and new. */
  install(netns: NetnsHandle, redirection: PodRedirection): Promise<void>;
  /**
   * Captures no new connection any more, out or in. Those that were captured go on, and ztunnel can
   * still deliver in the pod, until `remove`.
   */
  release(netns: NetnsHandle): Promise<void>;
  /** Takes everything out again, and ends what ztunnel still holds open; absence is fine. */
  remove(netns: NetnsHandle): Promise<void>;
  verify(netns: NetnsHandle, redirection: PodRedirection): Promise<RulesState>;
  /**
   * Calls back after anybody, we included, may have changed what is in place in a pod. Best effort:
   * what it does not notice, a later `verify` does.
   */
  watch(netns: NetnsHandle, onChange: () => void): RulesWatch;
  /** Makes the node's probe exemption exactly `targets`. */
  installHost(targets: ProbeTargets): Promise<void>;
  /** The exemption as the kernel has it; empty when absent. */
  readHost(): Promise<ProbeTargets>;
  removeHost(): Promise<void>;
}
