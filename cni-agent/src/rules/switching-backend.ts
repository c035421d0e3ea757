// The two ways of redirection behind one face: eBPF, and address translation (nftables or iptables). One is
// the node's choice; a pod may need the other. A pod changes over while it runs: the new way is prepared,
// ztunnel is told, and only when it takes connections the new way does the old one end, keeping those that it has.

import { setImmediate as nextTurn } from "node:timers/promises";
import { ipFamily } from "@ambit/common/net/ip.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { listensOn } from "@ambit/common/sys/listening-ports.ts";
import { setNetSysctl } from "@ambit/common/sys/sysctl.ts";
import type {
  PodRedirection,
  ProbeTargets,
  RedirectionBackend,
  RulesState,
  RulesWatch,
  TranslatingBackend,
} from "./backend.ts";
import type { EbpfBackend } from "./ebpf-backend.ts";
import { type EbpfState, releasePod } from "./ebpf-remains.ts";
import { podAddresses } from "./pod-addresses.ts";
import { runChecked } from "./run-command.ts";
import { INBOUND_PORT, maskedMark, OUTBOUND_PORT, PROXY_MARK } from "./wire.ts";

/** Connections that began before tracking are not taken for new ones, which would be translated. */
const TRACK_FROM_THE_MIDDLE = "netfilter/nf_conntrack_tcp_loose";

export interface SwitchingOptions {
  readonly translating: TranslatingBackend;
  /** Absent where the node cannot. */
  readonly ebpf: EbpfBackend | undefined;
  /** What an earlier agent may have left, where eBPF is not used any more. */
  readonly remains?: EbpfState | undefined;
  /** Means of translation that an earlier agent may have used in the pods. */
  readonly others?: readonly TranslatingBackend[];
}

export class SwitchingBackend implements RedirectionBackend {
  readonly #translating: TranslatingBackend;
  readonly #ebpf: EbpfBackend | undefined;
  #remains: EbpfState | undefined;
  readonly #others: readonly TranslatingBackend[];
  #useEbpf: boolean;
  /** Pods, by cookie, with rules of one of the others. */
  readonly #former = new Map<bigint, TranslatingBackend>();
  /** Pods, by cookie, that were prepared for eBPF a moment ago. */
  readonly #prepared = new Set<bigint>();
  /** Pods, by cookie, of which it is known that nothing of the other way is left. */
  readonly #settled = new Set<bigint>();

  constructor({ translating, ebpf, remains, others = [] }: SwitchingOptions) {
    this.#translating = translating;
    this.#ebpf = ebpf;
    this.#remains = remains;
    this.#others = others;
    this.#useEbpf = ebpf !== undefined;
  }

  /** The way that pods take from now on; those that took the other are changed by `install`. */
  get name(): string {
    return this.#useEbpf ? "ebpf" : this.#translating.name;
  }

  /** Whether that is a change. */
  prefer(way: "ebpf" | "translating"): boolean {
    const useEbpf = way === "ebpf" && this.#ebpf !== undefined;
    const changed = useEbpf !== this.#useEbpf;
    this.#useEbpf = useEbpf;
    if (changed) this.#settled.clear();
    return changed;
  }

  /**
   * All but the capture itself, so that ztunnel can listen before anything is captured. A pod that is
   * captured stays so. `install` is to follow soon.
   */
  async prepare(netns: NetnsHandle, redirection: PodRedirection): Promise<void> {
    const ebpf = this.#ebpfFor(redirection);
    if (ebpf === undefined) return;
    await ebpf.prepare(netns, redirection);
    this.#prepared.add(cookieOfNetns(netns.fd));
  }

  async install(netns: NetnsHandle, redirection: PodRedirection): Promise<void> {
    const cookie = cookieOfNetns(netns.fd);
    this.#settled.delete(cookie);
    const prepared = this.#prepared.delete(cookie);
    const ebpf = this.#ebpfFor(redirection);
    if (ebpf === undefined) return this.#installTranslation(netns, redirection);
    if (ebpf.isActive(netns)) return ebpf.install(netns, redirection);
    const translated = await this.#isTranslated(netns);
    if (!prepared) await ebpf.prepare(netns, redirection);
    if (translated) return;
    ebpf.activate(netns, redirection);
    this.#settled.add(cookie);
  }

  /** ztunnel serves the pod: what was prepared takes over, and what the other way has no more use for goes. */
  async settle(netns: NetnsHandle, redirection: PodRedirection): Promise<void> {
    const cookie = cookieOfNetns(netns.fd);
    if (this.#settled.has(cookie)) return;
    const ebpf = this.#ebpfFor(redirection);
    if (ebpf === undefined) {
      if (this.#hasEbpf(netns)) {
        // Never before the other way is there, and leads to somebody.
        if (!listensOn(netns.fd, OUTBOUND_PORT)) return;
        if (!(await this.#translating.isPresent(netns))) return;
      }
      this.#retireEbpf(netns);
      if (await this.#retire(this.#former.get(cookie), netns)) this.#settled.add(cookie);
      return;
    }
    if (!ebpf.isActive(netns)) {
      if (!ebpf.isServed(netns)) return;
      ebpf.activate(netns, redirection);
    }
    const former = await this.#retire(this.#former.get(cookie), netns);
    if ((await this.#retire(this.#translating, netns)) && former) this.#settled.add(cookie);
  }

  /** At the agent's start: an earlier one may have translated this pod's addresses by other means. */
  async adopt(netns: NetnsHandle): Promise<void> {
    for (const other of this.#others) {
      if (await other.isPresent(netns)) this.#former.set(cookieOfNetns(netns.fd), other);
    }
  }

  /** Captures no new connection any more; those that were captured go on until `remove`. */
  async release(netns: NetnsHandle): Promise<void> {
    this.#settled.delete(cookieOfNetns(netns.fd));
    await this.#ebpf?.release(netns);
    if (await this.#translating.isPresent(netns)) await this.#translating.release(netns);
  }

  async remove(netns: NetnsHandle): Promise<void> {
    const cookie = cookieOfNetns(netns.fd);
    this.#settled.delete(cookie);
    this.#prepared.delete(cookie);
    await this.#former.get(cookie)?.remove(netns);
    this.#former.delete(cookie);
    await this.#ebpf?.remove(netns);
    this.#retireEbpf(netns);
    await this.#translating.remove(netns);
    setNetSysctl(netns.fd, TRACK_FROM_THE_MIDDLE, "1");
  }

  forget(netns: NetnsHandle): void {
    const cookie = cookieOfNetns(netns.fd);
    this.#settled.delete(cookie);
    this.#prepared.delete(cookie);
    this.#former.delete(cookie);
    this.#retireEbpf(netns);
    this.#ebpf?.collectGarbage();
  }

  /**
   * Gives shortcuts to those of the pods that talk directly and have none, one in each turn of the event loop.
   * Namespaces are used as they are given: they may be closed afterwards. Rejects with AgentError.
   */
  async openShortcuts(pods: Iterable<NetnsHandle>): Promise<void> {
    const ebpf = this.#ebpf;
    const slots = ebpf?.slotsWithoutShortcut();
    if (ebpf === undefined || !slots || slots.size === 0) return;
    for (const netns of pods) {
      const slot = ebpf.slotOf(netns);
      if (slot === undefined || !slots.has(slot) || !ebpf.isActive(netns)) continue;
      ebpf.openShortcut(netns);
      await nextTurn();
    }
  }

  /** Takes away what eBPF has left behind, as far as no connection needs it any more. */
  collectGarbage(): void {
    this.#ebpf?.collectGarbage();
    if (this.#remains === undefined) return;
    const { pins, steering } = this.#remains;
    if (steering.pods().size > 0 || steering.direct.flows().some(({ link }) => link !== 0)) return;
    pins.removeAll();
    steering[Symbol.dispose]();
    this.#remains = undefined;
  }

  verify(netns: NetnsHandle, redirection: PodRedirection): Promise<RulesState> {
    const backend = this.#ebpfFor(redirection) ?? this.#translating;
    return backend.verify(netns, redirection);
  }

  watch(netns: NetnsHandle, onChange: () => void): RulesWatch {
    return this.#translating.watch(netns, onChange);
  }

  /** Where ztunnel finds what is captured; undefined: at its fixed ports. */
  slotOf(netns: NetnsHandle, redirection: PodRedirection): number | undefined {
    return this.#ebpfFor(redirection)?.slotOf(netns);
  }

  /** The slot that captures the pod now; undefined while translation has, or may have, a part in it. */
  capturingSlot(netns: NetnsHandle, redirection: PodRedirection): number | undefined {
    const ebpf = this.#ebpfFor(redirection);
    return ebpf?.isActive(netns) ? ebpf.slotOf(netns) : undefined;
  }

  installHost(targets: ProbeTargets): Promise<void> {
    return (this.#ebpf ?? this.#translating).installHost(targets);
  }

  readHost(): Promise<ProbeTargets> {
    return (this.#ebpf ?? this.#translating).readHost();
  }

  removeHost(): Promise<void> {
    return (this.#ebpf ?? this.#translating).removeHost();
  }

  /** What arrives by interfaces of the pod's own making is captured by packet, not by socket. */
  #ebpfFor({ virtualInterfaces }: PodRedirection): EbpfBackend | undefined {
    return this.#useEbpf && virtualInterfaces.length === 0 ? this.#ebpf : undefined;
  }

  async #installTranslation(netns: NetnsHandle, redirection: PodRedirection): Promise<void> {
    const captured = this.#hasEbpf(netns);
    if (captured) setNetSysctl(netns.fd, TRACK_FROM_THE_MIDDLE, "0");
    await this.#translating.install(netns, redirection);
    // Again: the setting may have come with the rules.
    if (captured) setNetSysctl(netns.fd, TRACK_FROM_THE_MIDDLE, "0");
  }

  #hasEbpf(netns: NetnsHandle): boolean {
    return this.#state?.steering.slotOf(cookieOfNetns(netns.fd)) !== undefined;
  }

  get #state(): EbpfState | undefined {
    return this.#ebpf?.state ?? this.#remains;
  }

  #retireEbpf(netns: NetnsHandle): void {
    if (this.#ebpf !== undefined) return this.#ebpf.retire(netns);
    if (this.#remains === undefined) return;
    const cookie = cookieOfNetns(netns.fd);
    releasePod(this.#remains, cookie, this.#remains.steering.slotOf(cookie));
    this.collectGarbage();
  }

  async #isTranslated(netns: NetnsHandle): Promise<boolean> {
    return this.#former.has(cookieOfNetns(netns.fd)) || (await this.#translating.isPresent(netns));
  }

  /** True when nothing is left. */
  async #retire(former: TranslatingBackend | undefined, netns: NetnsHandle): Promise<boolean> {
    if (former === undefined || !(await former.isPresent(netns))) return true;
    const inUse = await hasTranslatedConnections(netns);
    await (inUse ? former.release(netns) : former.removeRules(netns));
    return !inUse;
  }
}

/** Those in which bytes can still go one way at least. */
const OPEN_STATES = [
  "established",
  "fin-wait-1",
  "fin-wait-2",
  "close-wait",
  "last-ack",
  "closing",
];

/** Whether ztunnel has connections that it got, or that it opened to the pod, by translation. */
async function hasTranslatedConnections(netns: NetnsHandle): Promise<boolean> {
  const marked = `fwmark = ${maskedMark(PROXY_MARK)}`;
  const own = podAddresses(netns).map((ip) => `dst = ${ipFamily(ip) === 6 ? `[${ip}]` : ip}`);
  const delivered = own.length === 0 ? [] : [`( ${marked} and ( ${own.join(" or ")} ) )`];
  const captured = [OUTBOUND_PORT, INBOUND_PORT].map((port) => `sport = :${port}`);
  const filter = `( ${[...captured, ...delivered].join(" or ")} )`;
  const states = OPEN_STATES.flatMap((state) => ["state", state]);
  const words = [...states, ...filter.split(" ")];
  const listing = await runChecked(netns, ["ss", "-H", "-t", "-n", ...words]);
  return listing.trim() !== "";
}
