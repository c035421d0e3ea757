// Brings pods into the mesh and out of it, one step after the other: ztunnel, rules, probe exemption,
// annotation; and back. ztunnel comes first, so that a busy pod's connections find it, but not for long: then
// the pod is captured all the same, and nothing leaves in plaintext. Until its capture is proven it is not
// called enrolled. A pod that was enrolled stays so whatever fails: peers that took it for plain would talk
// plain to it. Owns the pods' namespaces.

import { isDeepStrictEqual } from "node:util";
import type { Clock } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { type NetnsHandle, sameNetns } from "@ambit/common/sys/netns.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { podRedirection, type RedirectionDefaults } from "../enrolment/pod-redirection.ts";
import { AgentError } from "../errors.ts";
import { type NetnsFinder, ownsAddress } from "../netns/finder.ts";
import type { PodRedirection, RulesWatch } from "../rules/backend.ts";
import type { SwitchingBackend } from "../rules/switching-backend.ts";
import type { ZdsPod } from "../zds/messages.ts";
import type { PodDirectory } from "../zds/server.ts";
import { hasMarks, type PodAnnotator, type PodMarks, REDIRECTION_ANNOTATION } from "./annotator.ts";
import type { CaptureProver } from "./capture-proof.ts";
import type { PodView } from "./pod-view.ts";
import type { ProbeExemption } from "./probe-exemption.ts";

const INTENDED: PodMarks = { redirection: "pending", capture: "pending" };
const ENROLLED: PodMarks = { redirection: "enabled", capture: "proven" };
const LEAVING: PodMarks = { redirection: undefined, capture: "leaving" };
const OUTSIDE: PodMarks = { redirection: undefined, capture: undefined };

/** A ztunnel that is well listens within milliseconds; a pod that is wanted is captured after this at the latest. */
export const CAPTURE_DEADLINE_MS = 1_000;

export interface ZtunnelLink {
  add(uid: string): Promise<void>;
  remove(uid: string): Promise<void>;
}

export interface PodMeshOptions {
  readonly backend: SwitchingBackend;
  readonly finder: NetnsFinder;
  readonly probes: ProbeExemption;
  readonly prover: CaptureProver;
  readonly annotator: PodAnnotator;
  readonly ztunnel: ZtunnelLink;
  readonly defaults: RedirectionDefaults;
  readonly clock: Clock;
  /** How long connections that were captured may go on when their pod leaves the mesh. */
  readonly drainMs: number;
  readonly log: Logger;
  /** Somebody else may have changed an enrolled pod's rules. */
  readonly onRulesTouched: (key: string) => void;
  /** An enrolled pod's rules were not as they should be, and are again. */
  readonly onRepaired: () => void;
}

interface Telling {
  /** What it is told; when that has changed meanwhile, it is to be told again. */
  readonly slot: number | undefined;
  readonly done: Promise<void>;
}

interface Entry {
  pod: PodView;
  netns: NetnsHandle | undefined;
  watch: RulesWatch | undefined;
  /** What is in the kernel as far as we know. */
  installed: PodRedirection | undefined;
  /** Where ztunnel finds what is captured; undefined: at its fixed ports. */
  slot: number | undefined;
  /** While we change rules ourselves, changes are no news. */
  installing: boolean;
  /** ztunnel acknowledged the pod in this namespace. */
  acknowledged: boolean;
  /** While ztunnel is being told of the pod. */
  telling: Telling | undefined;
  /** Since its rules or its ztunnel last changed. */
  proven: boolean;
  /** Since when its connections are let run out; undefined while it is wanted in the mesh. */
  leavingSinceMs: number | undefined;
  /** It was called enrolled, by us or before us: what the pod's object shows may be older. */
  enabled: boolean;
}

export class PodMesh implements PodDirectory {
  readonly #options: PodMeshOptions;
  readonly #entries = new Map<string, Entry>();
  /** Counts the changes of the way in which pods are captured. */
  #way = 0;

  constructor(options: PodMeshOptions) {
    this.#options = options;
  }

  *pods(): Iterable<ZdsPod> {
    for (const entry of this.#entries.values()) {
      if (entry.leavingSinceMs === undefined || entry.acknowledged) yield zdsPod(entry);
    }
  }

  pod(uid: string): ZdsPod | undefined {
    const entry = this.#entries.get(uid);
    return entry && zdsPod(entry);
  }

  get size(): number {
    return this.#entries.size;
  }

  /** How many pods' capture is proven. */
  get provenCount(): number {
    let count = 0;
    for (const { proven } of this.#entries.values()) if (proven) count++;
    return count;
  }

  /** Names of all pods that are, or are about to be, in the mesh. */
  keys(): string[] {
    return [...this.#entries.values()].map(({ pod }) => pod.key);
  }

  /** Whether the pod is being let go: what it has left of the mesh is running out. */
  isLeaving(uid: string): boolean {
    return this.#entries.get(uid)?.leavingSinceMs !== undefined;
  }

  /** The slot that captures the pod; undefined where its addresses are translated, or nothing is yet. */
  capturingSlot(uid: string): number | undefined {
    const entry = this.#entries.get(uid);
    if (entry?.netns === undefined || entry.installed === undefined) return undefined;
    return this.#options.backend.capturingSlot(entry.netns, entry.installed);
  }

  /** The enrolled pod of that name, which may be one that was since replaced. */
  entriesOf(key: string): PodView[] {
    return [...this.#entries.values()].map(({ pod }) => pod).filter((pod) => pod.key === key);
  }

  /**
   * At start: a pod that an earlier agent enrolled. Its rules are compared and mended; without its
   * namespace ztunnel is told to keep what it has. Rejects when the rules cannot be mended.
   */
  async adopt(pod: PodView, verifyRules: boolean): Promise<void> {
    const entry = newEntry(pod);
    this.#entries.set(pod.uid, entry);
    if (!this.#open(entry)) {
      return this.#options.log.warn("namespace of an enrolled pod not found", at(pod));
    }
    entry.acknowledged = true;
    if (verifyRules) await this.#options.backend.adopt(entry.netns!);
    const installed = podRedirection(pod, this.#options.defaults);
    entry.installed = installed;
    entry.slot = this.#options.backend.slotOf(entry.netns!, installed);
    if (verifyRules) await this.#mend(entry);
  }

  /**
   * Enrols a pod, or brings it up to date; with `audit`, what is thought to be in place is looked at
   * again. Rejects with AgentError; what was done stays.
   */
  async join(pod: PodView, audit = false): Promise<void> {
    const known = this.#entries.get(pod.uid);
    const stays = known !== undefined && known.leavingSinceMs === undefined;
    const moved = stays && !sameAddresses(known.pod, pod);
    const wasEnabled = (known ?? newEntry(pod)).enabled;
    try {
      const entry = this.#captured(pod, audit || moved);
      if (entry === undefined) return;
      // Before the first rule, so that an agent that starts anew knows which pods may have some.
      if (!stays && !wasEnabled) await this.#tryAnnotate(pod, INTENDED);
      entry.leavingSinceMs = undefined;
      if (audit || moved) await this.#audit(entry);
      await this.#awaitListeners(entry);
      await this.#installRules(entry);
      await this.#tellZtunnel(entry);
      await this.#options.backend.settle(entry.netns!, entry.installed!);
      await this.#prove(entry);
      await this.#exemptProbes(entry);
      await this.#annotate(pod, ENROLLED);
      entry.enabled = true;
      if (!wasEnabled) this.#options.log.info("pod enrolled", at(pod));
    } catch (error) {
      const redirection = wasEnabled ? "enabled" : "pending";
      await this.#tryAnnotate(pod, { redirection, capture: `unproven: ${errorMessage(error)}` });
      throw error;
    }
  }

  /**
   * Takes a pod out. Its new connections are its own at once, and peers are told; those that were
   * captured may go on for a while: returns in how many milliseconds to call again, 0 when the pod is
   * out. `running` tells whether its namespace must be cleaned: a pod that is gone takes its rules with
   * it. Never waits for ztunnel longer than one deadline.
   */
  async leave(pod: PodView, running: boolean): Promise<number> {
    const { finder, probes, ztunnel, log } = this.#options;
    await probes.remove(pod.uid);
    const entry = this.#entries.get(pod.uid) ?? newEntry(pod);
    entry.pod = pod;
    this.#forgetRules(entry);
    if (running) entry.netns ??= finder.find(pod);
    const restMs = running ? await this.#release(entry) : 0;
    if (restMs > 0) return restMs;
    // ztunnel first: rules that go before it has cut its connections would let their next bytes out.
    this.#entries.delete(pod.uid);
    await ztunnel.remove(pod.uid);
    await this.#clean(entry, running);
    log.info("pod left the mesh", at(pod));
    if (!pod.deleting) await this.#annotate(pod, OUTSIDE);
    return 0;
  }

  /** ztunnel refused a pod that had been acknowledged before. */
  forgetAcknowledgement(uid: string): PodView | undefined {
    const entry = this.#entries.get(uid);
    if (entry !== undefined) {
      entry.acknowledged = false;
      entry.proven = false;
    }
    return entry?.pod;
  }

  /** Another ztunnel serves the pods from now on: what was proven was proven of its predecessor. */
  forgetProofs(): void {
    for (const entry of this.#entries.values()) entry.proven = false;
  }

  /** Pods are captured another way from now on: what is in place is to be changed. */
  forgetRules(): void {
    this.#way++;
    for (const entry of this.#entries.values()) entry.installed = undefined;
  }

  /** The namespaces of the pods that are in the mesh to stay. */
  *namespaces(): Iterable<NetnsHandle> {
    for (const { netns, installed, leavingSinceMs } of this.#entries.values()) {
      if (netns && installed && leavingSinceMs === undefined) yield netns;
    }
  }

  /** Closes the descriptors; the rules stay, and so does the mesh. */
  close(): void {
    for (const { netns, watch } of this.#entries.values()) {
      watch?.close();
      netns?.close();
    }
    this.#entries.clear();
  }

  /**
   * The pod's entry with its namespace; undefined while the pod has neither namespace nor address.
   * `doubtful`: the namespace may be another than it was.
   */
  #captured(pod: PodView, doubtful: boolean): Entry | undefined {
    const entry = this.#entries.get(pod.uid) ?? newEntry(pod);
    entry.pod = pod;
    if (doubtful) this.#dropForeignNetns(entry);
    if (this.#open(entry)) {
      this.#entries.set(pod.uid, entry);
      return entry;
    }
    if (pod.ips.length === 0) return undefined;
    const message = "the pod has an address but no process in a namespace that owns it";
    throw new AgentError("netns-not-found", message);
  }

  /** A sandbox that was made anew: same pod, another namespace. What was done to the old one is void. */
  #dropForeignNetns(entry: Entry): void {
    const { pod, netns } = entry;
    if (netns === undefined || pod.ips.length === 0 || ownsAddress(netns, pod.ips)) return;
    const found = this.#options.finder.find(pod);
    if (found === undefined) return;
    if (sameNetns(found, netns)) return found.close();
    this.#options.log.warn("the pod has another namespace than before", at(pod));
    entry.watch?.close();
    this.#options.backend.forget(netns);
    netns.close();
    Object.assign(entry, { ...newEntry(pod), netns: found, enabled: entry.enabled });
  }

  /** Finds the pod's namespace and begins to watch it. */
  #open(entry: Entry): boolean {
    const { backend, finder, onRulesTouched } = this.#options;
    entry.netns ??= finder.find(entry.pod);
    if (entry.netns === undefined) return false;
    entry.watch ??= backend.watch(entry.netns, () => {
      if (!entry.installing) onRulesTouched(entry.pod.key);
    });
    return true;
  }

  /** Ends capture; returns how long what ztunnel has of the pod may still go on. */
  async #release(entry: Entry): Promise<number> {
    const { backend, clock, drainMs, log } = this.#options;
    if (entry.netns === undefined) return 0;
    const drains = entry.acknowledged && drainMs > 0;
    if (entry.leavingSinceMs === undefined) {
      await backend.release(entry.netns);
      if (drains) await this.#annotate(entry.pod, LEAVING);
      if (drains) log.info("pod leaves the mesh", { ...at(entry.pod), drain_ms: drainMs });
      entry.leavingSinceMs = clock.monotonicMs();
    }
    return drains ? Math.max(0, entry.leavingSinceMs + drainMs - clock.monotonicMs()) : 0;
  }

  async #clean(entry: Entry, running: boolean): Promise<void> {
    try {
      const { backend } = this.#options;
      if (entry.netns !== undefined) {
        await (running ? backend.remove(entry.netns) : backend.forget(entry.netns));
      }
    } catch (error) {
      // It comes back for another try, and then must find what is left.
      entry.acknowledged = false;
      this.#entries.set(entry.pod.uid, entry);
      throw error;
    }
    entry.netns?.close();
  }

  /** What is in the pod is no longer ours to watch, or to take for granted. */
  #forgetRules(entry: Entry): void {
    entry.watch?.close();
    entry.watch = undefined;
    entry.installed = undefined;
    entry.proven = false;
    entry.enabled = false;
  }

  async #audit(entry: Entry): Promise<void> {
    entry.proven = false;
    if (entry.installed !== undefined) await this.#mend(entry);
  }

  /** Compares with what the kernel has; puts it right and tells when something was wrong. */
  async #mend(entry: Entry): Promise<void> {
    const { backend, log, onRepaired } = this.#options;
    const state = await backend.verify(entry.netns!, entry.installed!);
    if (state === "ok") return;
    entry.installed = undefined;
    await this.#installRules(entry);
    log.warn("rules of an enrolled pod had been changed, mended", { ...at(entry.pod), state });
    onRepaired();
  }

  async #installRules(entry: Entry): Promise<void> {
    const { backend, defaults } = this.#options;
    const wanted = podRedirection(entry.pod, defaults);
    if (isDeepStrictEqual(entry.installed, wanted)) return;
    entry.installed = undefined;
    entry.proven = false;
    // Before its addresses are translated: then a probe is known by another address only.
    const translated = backend.slotOf(entry.netns!, wanted) === undefined;
    if (translated && entry.slot !== undefined) await this.#exemptProbes(entry);
    entry.installing = true;
    let way: number;
    try {
      do {
        way = this.#way;
        await backend.install(entry.netns!, wanted);
      } while (way !== this.#way);
    } finally {
      entry.installing = false;
    }
    entry.installed = wanted;
    const slot = backend.slotOf(entry.netns!, wanted);
    if (slot !== entry.slot) entry.acknowledged = false;
    entry.slot = slot;
  }

  /**
   * Before a pod is captured for the first time: ztunnel is to listen in it. Never longer than
   * CAPTURE_DEADLINE_MS, and not at all where there is no ztunnel.
   */
  async #awaitListeners(entry: Entry): Promise<void> {
    const { backend, clock, defaults } = this.#options;
    if (entry.enabled || entry.acknowledged || entry.installed !== undefined) return;
    const wanted = podRedirection(entry.pod, defaults);
    entry.installing = true;
    try {
      await backend.prepare(entry.netns!, wanted);
    } finally {
      entry.installing = false;
    }
    entry.slot = backend.slotOf(entry.netns!, wanted);
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const deadline = clock.after(CAPTURE_DEADLINE_MS, resolve);
    // What it failed with is told once the pod is captured.
    await Promise.race([this.#tellZtunnel(entry).catch(() => undefined), late]);
    deadline.cancel();
  }

  #tellZtunnel(entry: Entry): Promise<void> {
    if (entry.acknowledged) return Promise.resolve();
    entry.proven = false;
    const { telling: before } = entry;
    if (before !== undefined && before.slot === entry.slot) return before.done;
    const done = this.#options.ztunnel.add(entry.pod.uid).then(
      () => {
        if (entry.telling !== telling) return;
        entry.telling = undefined;
        entry.acknowledged = true;
      },
      (error: unknown) => {
        if (entry.telling === telling) entry.telling = undefined;
        throw error;
      },
    );
    const telling = { slot: entry.slot, done };
    entry.telling = telling;
    return done;
  }

  async #prove(entry: Entry): Promise<void> {
    if (entry.proven) return;
    await this.#options.prover.prove(entry.pod, entry.netns!, entry.installed!.ipv6);
    entry.proven = true;
  }

  async #exemptProbes({ pod }: Entry): Promise<void> {
    await this.#options.probes.set(pod.uid, pod.ips, this.capturingSlot(pod.uid));
  }

  async #annotate(pod: PodView, marks: PodMarks): Promise<void> {
    if (!hasMarks(pod, marks)) await this.#options.annotator.annotate(pod, marks);
  }

  /** What else failed is what gets reported; that it cannot be annotated is only logged. */
  async #tryAnnotate(pod: PodView, marks: PodMarks): Promise<void> {
    try {
      await this.#annotate(pod, marks);
    } catch (error) {
      const fields = { ...at(pod), error: errorMessage(error) };
      this.#options.log.warn("cannot annotate a pod", fields);
    }
  }
}

function newEntry(pod: PodView): Entry {
  return {
    pod,
    netns: undefined,
    watch: undefined,
    installed: undefined,
    slot: undefined,
    installing: false,
    acknowledged: false,
    telling: undefined,
    proven: false,
    leavingSinceMs: undefined,
    enabled: pod.annotations[REDIRECTION_ANNOTATION] === "enabled",
  };
}

function sameAddresses(a: PodView, b: PodView): boolean {
  return a.ips.length === b.ips.length && a.ips.every((ip) => b.ips.includes(ip));
}

function zdsPod({ pod, netns, slot }: Entry): ZdsPod {
  const { uid, name, namespace, serviceAccount } = pod;
  return { uid, name, namespace, serviceAccount, netnsFd: netns?.fd, slot };
}

function at({ namespace, name }: PodView): { namespace: string; pod: string } {
  return { namespace, pod: name };
}
