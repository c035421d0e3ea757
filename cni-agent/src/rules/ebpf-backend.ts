// Redirection by eBPF (bpf/README.md): a pod gets a slot, its addresses, a steering program, the route that
// makes destinations local, and last the entry that has its sockets marked. No packet is rewritten, so
// natural addresses, no conntrack, no NAT. What of the node's probe exemption needs addresses translated is
// another backend's.

import { isDeepStrictEqual } from "node:util";
import type { Ip } from "@ambit/common/net/ip.ts";
import { CONSTANTS } from "@ambit/common/sys/bpf-layout.gen.ts";
import type { SlotState } from "@ambit/common/sys/bpf-steering.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { setNetSysctl } from "@ambit/common/sys/sysctl.ts";
import { AgentError } from "../errors.ts";
import type {
  PodRedirection,
  ProbeTarget,
  ProbeTargets,
  RedirectionBackend,
  RulesState,
  RulesWatch,
} from "./backend.ts";
import type { EbpfNode } from "./ebpf-node.ts";
import { endConnections } from "./end-connections.ts";
import { type EbpfState, podPin, releasePod } from "./ebpf-remains.ts";
import type { KubeletSockets } from "./kubelet-sockets.ts";
import { podAddresses, preferredSource } from "./pod-addresses.ts";
import { installReturnRoutes, removeReturnRoutes, verifyReturnRoutes } from "./return-routes.ts";
import { watchPod } from "./watch-pod.ts";
import { CONNECTION_MARK } from "./wire.ts";

/**
 * What answers to ztunnel's connections carries their mark, so that it finds lo: sockets that are
 * accepted, and the kernel itself when it refuses.
 */
const MARK_SYSCTLS = ["ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect"];

/** Who exempts the node's probes by translating their addresses. */
export type ProbeHost = Pick<RedirectionBackend, "installHost" | "readHost" | "removeHost">;

export class EbpfBackend implements RedirectionBackend {
  readonly name = "ebpf";
  readonly #node: EbpfNode;
  readonly #probes: ProbeHost;
  readonly #kubelet: Pick<KubeletSockets, "problem">;
  /** The probes that are known by address, as last written. */
  #translated: ProbeTargets | undefined;
  /** By cookie; what the kernel has, and what is being installed. */
  readonly #slots: Map<bigint, number>;

  constructor(node: EbpfNode, probes: ProbeHost, kubelet: Pick<KubeletSockets, "problem">) {
    this.#node = node;
    this.#probes = probes;
    this.#kubelet = kubelet;
    this.#slots = node.steering.pods();
  }

  async install(netns: NetnsHandle, redirection: PodRedirection): Promise<void> {
    await this.prepare(netns, redirection);
    this.activate(netns, redirection);
  }

  /** All but the capture itself: what comes the way it did goes on so. */
  async prepare(netns: NetnsHandle, redirection: PodRedirection): Promise<void> {
    const cookie = this.#podCookie(netns);
    const slot = this.#slots.get(cookie) ?? this.#takeSlot(cookie);
    try {
      this.#node.mend();
      this.#node.steering.setAddresses(slot, podAddresses(netns));
      requireMarkedAnswers(netns, redirection.ipv6);
      installReturnRoutes(netns, redirection.ipv6, sources(netns));
      this.#node.attachPod(cookie, netns, slot);
      this.#node.shortcuts.renew(cookie, netns, slot);
    } catch (error) {
      throw asAgentError(error);
    }
  }

  /** Captures from now on a pod that was prepared; its own connections and others' at the same moment. */
  activate(netns: NetnsHandle, redirection: PodRedirection): void {
    const cookie = cookieOfNetns(netns.fd);
    const slot = this.#slots.get(cookie)!;
    try {
      // First what lets ztunnel deliver, then what captures: else it would be given its own deliveries.
      this.#node.steering.enrol(cookie, slot);
      this.#node.steering.setSlot(slot, slotState(redirection));
    } catch (error) {
      throw asAgentError(error);
    }
  }

  /** ztunnel can still deliver, also what comes through tunnels; names are asked for as outside the mesh. */
  release(netns: NetnsHandle): Promise<void> {
    const slot = this.slotOf(netns);
    if (slot !== undefined) {
      const { steering } = this.#node;
      steering.direct.revoke(slot);
      steering.setSlot(slot, { inbound: false, dns: false, released: true });
    }
    return Promise.resolve();
  }

  async remove(netns: NetnsHandle): Promise<void> {
    const cookie = cookieOfNetns(netns.fd);
    const slot = this.#slots.get(cookie);
    if (slot === undefined) return;
    const { steering, pins } = this.#node;
    steering.setSlot(slot, undefined);
    steering.release(cookie);
    pins.detach("pods", podPin(cookie));
    // ztunnel cuts these connections anyway; without the route their next bytes would leave in plain text.
    await endConnections(netns, CONNECTION_MARK);
    this.retire(netns);
    removeReturnRoutes(netns);
    for (const name of MARK_SYSCTLS) setNetSysctl(netns.fd, name, "0");
  }

  /** Ends the capture of a pod, and of none of its connections: their routes stay. */
  retire(netns: NetnsHandle): void {
    const cookie = cookieOfNetns(netns.fd);
    releasePod(this.#node, cookie, this.#slots.get(cookie));
    this.#slots.delete(cookie);
  }

  /** Slots of pods whose direct connections should get a shortcut. */
  slotsWithoutShortcut(): ReadonlySet<number> {
    return this.#node.shortcuts.missing();
  }

  /** Of a pod that is captured; for a few milliseconds this thread does nothing else. */
  openShortcut(netns: NetnsHandle): void {
    const cookie = cookieOfNetns(netns.fd);
    const slot = this.#slots.get(cookie);
    try {
      if (slot !== undefined) this.#node.shortcuts.open(cookie, netns, slot);
    } catch (error) {
      throw asAgentError(error);
    }
  }

  get state(): EbpfState {
    return this.#node;
  }

  /** Forgets what is gone: pods' namespaces, ztunnels' cgroups. */
  collectGarbage(): void {
    this.#node.collectGarbage();
    const pinned = new Set(this.#node.pins.names("pods"));
    for (const cookie of this.#slots.keys()) {
      if (!pinned.has(podPin(cookie))) this.#slots.delete(cookie);
    }
  }

  /** Of a pod that is captured, or prepared to be. */
  slotOf(netns: NetnsHandle): number | undefined {
    return this.#slots.get(cookieOfNetns(netns.fd));
  }

  /** Whether a pod's new connections are captured. */
  isActive(netns: NetnsHandle): boolean {
    const { steering } = this.#node;
    const slot = steering.slotOf(cookieOfNetns(netns.fd));
    return slot !== undefined && steering.slot(slot) !== undefined;
  }

  /** Whether ztunnel takes what the pod's slot captures. */
  isServed(netns: NetnsHandle): boolean {
    const slot = this.slotOf(netns);
    return slot !== undefined && this.#node.steering.listener(slot, "OUTBOUND") !== undefined;
  }

  async verify(netns: NetnsHandle, redirection: PodRedirection): Promise<RulesState> {
    const cookie = cookieOfNetns(netns.fd);
    const routes = verifyReturnRoutes(netns, redirection.ipv6);
    const slot = this.#node.steering.slotOf(cookie);
    if (slot === undefined) return routes === "absent" ? "absent" : "drifted";
    return routes === "ok" && this.#isSteered(netns, cookie, slot, redirection) ? "ok" : "drifted";
  }

  watch(netns: NetnsHandle, onChange: () => void): RulesWatch {
    return watchPod(netns, onChange);
  }

  /** Where kubelet's sockets are known, by these; else, and where addresses are translated, by address. */
  async installHost(targets: ProbeTargets): Promise<void> {
    const { steering } = this.#node;
    const bySocket = new Set<Ip>();
    for (const [ip, { slot }] of this.#kubelet.problem === undefined ? targets : []) {
      if (slot === undefined) continue;
      steering.allowProbes(ip, slot);
      bySocket.add(ip);
    }
    await this.#translateProbes(new Map([...targets].filter(([ip]) => !bySocket.has(ip))));
    for (const ip of steering.probeTargets().keys()) {
      if (!bySocket.has(ip)) steering.forbidProbes(ip);
    }
  }

  /** Only when that changes: it takes a program that has to be started. */
  async #translateProbes(targets: ProbeTargets): Promise<void> {
    if (isDeepStrictEqual(this.#translated, targets)) return;
    this.#translated = undefined;
    await this.#probes.installHost(targets);
    this.#translated = targets;
  }

  /** Whose an address is that is known by slot only, is not known. */
  async readHost(): Promise<ProbeTargets> {
    const bySocket = [...this.#node.steering.probeTargets()];
    const targets = bySocket.map(([ip, slot]): [Ip, ProbeTarget] => [ip, { uid: "", slot }]);
    return new Map([...targets, ...(await this.#probes.readHost())]);
  }

  async removeHost(): Promise<void> {
    const { steering } = this.#node;
    for (const ip of steering.probeTargets().keys()) steering.forbidProbes(ip);
    this.#translated = undefined;
    await this.#probes.removeHost();
  }

  #isSteered(netns: NetnsHandle, cookie: bigint, slot: number, wanted: PodRedirection): boolean {
    const { steering, pins } = this.#node;
    const state = steering.slot(slot);
    const { inbound, dns } = slotState(wanted);
    return (
      this.#node.isIntact &&
      state?.inbound === inbound &&
      state.dns === dns &&
      state.released === undefined &&
      pins.target("pods", podPin(cookie)) === netns.inode &&
      this.#node.shortcuts.isFit(cookie, netns, slot) &&
      sameAddresses(steering.addresses(slot), podAddresses(netns))
    );
  }

  #podCookie(netns: NetnsHandle): bigint {
    const cookie = cookieOfNetns(netns.fd);
    if (cookie !== this.#node.hostCookie) return cookie;
    throw new AgentError("netns-not-found", "the namespace is the node's own, not a pod's");
  }

  #takeSlot(cookie: bigint): number {
    const taken = new Set(this.#slots.values());
    for (let slot = 0; slot < CONSTANTS.SLOTS_MAX; slot++) {
      if (taken.has(slot)) continue;
      // An agent that ended between preparing a pod and capturing it may have had it listened for.
      this.#node.steering.clearListeners(slot);
      this.#slots.set(cookie, slot);
      return slot;
    }
    throw new AgentError("bpf-failed", `all ${CONSTANTS.SLOTS_MAX} slots of the node are taken`);
  }
}

function requireMarkedAnswers(netns: NetnsHandle, ipv6: boolean): void {
  for (const name of MARK_SYSCTLS) {
    if (setNetSysctl(netns.fd, name, "1") || (!ipv6 && name.startsWith("ipv6"))) continue;
    throw new AgentError("bpf-failed", `cannot set net.${name.replaceAll("/", ".")} in the pod`);
  }
}

function slotState({ inboundCapture, dnsCapture }: PodRedirection): SlotState {
  return { inbound: inboundCapture, dns: dnsCapture };
}

function sources(netns: NetnsHandle) {
  return { 4: preferredSource(netns, 4), 6: preferredSource(netns, 6) };
}

function sameAddresses(a: readonly Ip[], b: readonly Ip[]): boolean {
  return a.length === b.length && b.every((ip) => a.includes(ip));
}

function asAgentError(error: unknown): AgentError {
  if (error instanceof AgentError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new AgentError("bpf-failed", `cannot redirect by eBPF: ${message}`, error);
}
