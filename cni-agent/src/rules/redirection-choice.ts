// Which way the node's pods are captured, and why: what was asked for, what the node can do, and what its
// ztunnel can take. Decided at the start, and again whenever another ztunnel serves the node.

import { CONSTANTS } from "@ambit/common/sys/bpf-layout.gen.ts";
import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { pinFolder } from "@ambit/common/sys/bpf-steering.ts";
import { failureCode } from "../errors.ts";
import type { TranslatingBackend } from "./backend.ts";
import { type GateCheck, GateError, type OpenedEbpf, openEbpf } from "./ebpf-gate.ts";
import type { KubeletCheck } from "./kubelet-cgroup.ts";
import { openRemains } from "./ebpf-remains.ts";
import { detectIptables, type IptablesKind, usableIptables } from "./iptables-binaries.ts";
import { IptablesBackend } from "./iptables-backend.ts";
import { NftablesBackend } from "./nftables-backend.ts";
import { runCommand } from "./run-command.ts";
import { SwitchingBackend } from "./switching-backend.ts";

export type RedirectionMode = "auto" | "ebpf" | "nftables" | "iptables";

/** What kept eBPF from being used: a check of the gate, or what the node's ztunnel cannot. */
export type FallbackCheck = GateCheck | "ztunnel";

export interface Fallback {
  readonly check: FallbackCheck;
  readonly message: string;
}

export interface Choice {
  /** The backend's name. */
  readonly backend: string;
  /** Why it is not eBPF, which would have been taken; absent when all is as it was asked for. */
  readonly fallback?: Fallback;
}

/** How kubelet's probes are known: by its sockets, or by the address to which theirs are translated. */
export interface ProbeChoice {
  readonly by: "sockets" | "addresses";
  /** Why it is not by sockets where pods are captured by eBPF. */
  readonly fallback?: { readonly check: KubeletCheck; readonly message: string };
}

/** What a ztunnel says of itself when it connects. */
export interface ZtunnelFacts {
  readonly steeringLayout: number;
  readonly pid: number;
}

export interface ChoiceOptions {
  readonly mode: RedirectionMode;
  readonly nodeName: string;
  readonly bpfFs: string;
  readonly cgroup: string | undefined;
  readonly procFolder: string;
  readonly hostNetns: NetnsHandle | undefined;
  readonly kubeletCgroup?: string | undefined;
  readonly shortcuts?: boolean | undefined;
  readonly probeUid: number | undefined;
  readonly kernelRelease?: string;
  /** The kind of iptables to use where it is used; undefined: what the node uses. */
  readonly iptablesKind?: IptablesKind | undefined;
}

export class RedirectionChoice implements Disposable {
  readonly backend: SwitchingBackend;
  readonly #mode: RedirectionMode;
  readonly #ebpf: OpenedEbpf | undefined;
  #fallback: Fallback | undefined;

  private constructor(parts: {
    readonly mode: RedirectionMode;
    readonly backend: SwitchingBackend;
    readonly ebpf: OpenedEbpf | undefined;
    readonly fallback: Fallback | undefined;
  }) {
    this.backend = parts.backend;
    this.#mode = parts.mode;
    this.#ebpf = parts.ebpf;
    this.#fallback = parts.fallback;
  }

  /** Rejects with UserError when eBPF is demanded and the node cannot, or when there is no way at all. */
  static async make(options: ChoiceOptions): Promise<RedirectionChoice> {
    const { mode } = options;
    const translating = await translatingBackend(options);
    const opened = await tryEbpf(options, translating);
    const ebpf = opened instanceof GateError ? undefined : opened;
    if (opened instanceof GateError && mode === "ebpf") {
      throw new UserError(
        `REDIRECTION=ebpf, but this node cannot (${opened.check}): ${opened.message}; ` +
          "REDIRECTION=auto takes the best that it can",
      );
    }
    const remains = ebpf ? undefined : openRemains(pinFolder(options.bpfFs, options.nodeName));
    const others = await otherTranslations(options, translating);
    const backend = new SwitchingBackend({ translating, ebpf: ebpf?.backend, remains, others });
    const fallback =
      opened instanceof GateError ? { check: opened.check, message: opened.message } : undefined;
    return new RedirectionChoice({ mode, backend, ebpf, fallback });
  }

  get current(): Choice {
    const fallback = this.#fallback;
    return { backend: this.backend.name, ...(fallback && { fallback }) };
  }

  get probes(): ProbeChoice {
    if (this.#ebpf === undefined || this.backend.name !== "ebpf") return { by: "addresses" };
    const { problem } = this.#ebpf.kubelet;
    if (problem === undefined) return { by: "sockets" };
    const { check, message } = problem;
    return { by: "addresses", fallback: { check, message } };
  }

  /** Calls back when the node's probes are to be exempt in another way than before. */
  onProbesChanged(callback: () => void): void {
    if (this.#ebpf !== undefined) this.#ebpf.kubelet.onChange = callback;
  }

  /** Looks whether kubelet is where it was, or can be found by now, and what nobody needs any more. */
  lookOver(): void {
    this.#ebpf?.kubelet.refresh();
    this.backend.collectGarbage();
  }

  /** How many pods that talk directly have a shortcut (""), or why not; empty where there are none. */
  shortcuts(): ReadonlyMap<string, number> {
    return this.#ebpf?.node.shortcuts.counts() ?? new Map();
  }

  /** Events that the programs counted, by name; empty where there are none. */
  counters(): ReadonlyMap<string, number> {
    return this.#ebpf?.node.steering.counters() ?? new Map();
  }

  /** Another ztunnel serves the node. True when pods are to be captured another way than before. */
  onZtunnel(ztunnel: ZtunnelFacts): boolean {
    if (this.#ebpf === undefined) return false;
    const problem = this.#problemOf(ztunnel);
    this.#fallback = problem === undefined ? undefined : { check: "ztunnel", message: problem };
    const translate = problem !== undefined && this.#mode === "auto";
    return this.backend.prefer(translate ? "translating" : "ebpf");
  }

  [Symbol.dispose](): void {
    this.#ebpf?.kubelet[Symbol.dispose]();
    this.#ebpf?.node[Symbol.dispose]();
  }

  /** Why this ztunnel cannot take what eBPF captures; undefined when it can, and may. */
  #problemOf({ steeringLayout, pid }: ZtunnelFacts): string | undefined {
    if (steeringLayout === 0) return "the node's ztunnel takes connections at fixed ports only";
    const { LAYOUT_VERSION } = CONSTANTS;
    if (steeringLayout !== LAYOUT_VERSION) {
      return `the node's ztunnel knows layout ${steeringLayout} of the maps, not ${LAYOUT_VERSION}`;
    }
    try {
      this.#ebpf!.node.admitProcess(pid);
      return undefined;
    } catch (error) {
      return errorMessage(error);
    }
  }
}

async function tryEbpf(
  options: ChoiceOptions,
  probes: TranslatingBackend,
): Promise<OpenedEbpf | GateError | undefined> {
  if (options.mode === "nftables" || options.mode === "iptables") return undefined;
  try {
    return await openEbpf({ kubeletCgroup: undefined, ...options, probes });
  } catch (error) {
    if (error instanceof GateError) return error;
    throw error;
  }
}

/** nftables where `nft` works, else iptables: also beside eBPF, for probes and for pods that need it. */
async function translatingBackend(options: ChoiceOptions): Promise<TranslatingBackend> {
  const { mode, hostNetns, probeUid, iptablesKind } = options;
  if (mode === "nftables" || (mode !== "iptables" && (await hasNft(hostNetns)))) {
    return new NftablesBackend({ hostNetns, probeUid });
  }
  try {
    const kind = await detectIptables(hostNetns, iptablesKind);
    return new IptablesBackend({ kind, hostNetns, probeUid });
  } catch (error) {
    if (failureCode(error) !== "command-missing") throw error;
    if (iptablesKind !== undefined) throw new UserError(errorMessage(error));
    throw new UserError("neither nft nor iptables works on this node: install nftables");
  }
}

/** What the node could also have used: an agent with other settings may have. */
async function otherTranslations(
  { hostNetns, probeUid }: ChoiceOptions,
  { name }: TranslatingBackend,
): Promise<TranslatingBackend[]> {
  if (name === "iptables") {
    const usable = await hasNft(hostNetns);
    return usable ? [new NftablesBackend({ hostNetns, probeUid })] : [];
  }
  const kinds = await usableIptables(hostNetns);
  return kinds.map((kind) => new IptablesBackend({ kind, hostNetns, probeUid }));
}

async function hasNft(hostNetns: NetnsHandle | undefined): Promise<boolean> {
  try {
    return (await runCommand(hostNetns, ["nft", "list", "tables"])).status === 0;
  } catch (error) {
    if (failureCode(error) === "command-missing") return false;
    throw error;
  }
}
