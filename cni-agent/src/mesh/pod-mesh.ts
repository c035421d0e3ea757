// Brings pods into the mesh and out of it, one step after the other: probe exemption, rules, ztunnel,
// annotation; and back. The exemption comes first and goes last (Istio sets it after ztunnel): no probe
// of a pod that is joining or leaving meets ztunnel. Until ztunnel has acknowledged a pod its traffic meets rules
// without a listener and fails: nothing leaves in plaintext. Owns the enrolled pods' namespaces.

import { isDeepStrictEqual } from "node:util";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { podRedirection, type RedirectionDefaults } from "../enrolment/pod-redirection.ts";
import { AgentError } from "../errors.ts";
import type { NetnsFinder } from "../netns/finder.ts";
import type { PodRedirection, RedirectionBackend } from "../rules/backend.ts";
import type { ZdsPod } from "../zds/messages.ts";
import type { PodDirectory } from "../zds/server.ts";
import type { PodView } from "./pod-view.ts";
import type { ProbeExemption } from "./probe-exemption.ts";

export const REDIRECTION_ANNOTATION = "ambient.istio.io/redirection";

/** enabled: captured and served. pending: captured, not served yet: its traffic fails. */
export type RedirectionState = "enabled" | "pending" | undefined;

/** Writes the annotation that tells everybody else; a pod that is gone is no error. */
export interface PodAnnotator {
  setRedirection(pod: PodView, state: RedirectionState): Promise<void>;
}

export interface ZtunnelLink {
  add(uid: string): Promise<void>;
  remove(uid: string): Promise<void>;
}

export interface PodMeshOptions {
  readonly backend: RedirectionBackend;
  readonly finder: NetnsFinder;
  readonly probes: ProbeExemption;
  readonly annotator: PodAnnotator;
  readonly ztunnel: ZtunnelLink;
  readonly defaults: RedirectionDefaults;
  readonly log: Logger;
}

interface Entry {
  pod: PodView;
  netns: NetnsHandle | undefined;
  /** What is in the kernel as far as we know. */
  installed: PodRedirection | undefined;
  /** ztunnel acknowledged the pod in this namespace. */
  acknowledged: boolean;
}

export class PodMesh implements PodDirectory {
  readonly #options: PodMeshOptions;
  readonly #entries = new Map<string, Entry>();

  constructor(options: PodMeshOptions) {
    this.#options = options;
  }

  *pods(): Iterable<ZdsPod> {
    for (const entry of this.#entries.values()) yield zdsPod(entry);
  }

  pod(uid: string): ZdsPod | undefined {
    const entry = this.#entries.get(uid);
    return entry && zdsPod(entry);
  }

  get size(): number {
    return this.#entries.size;
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
    const { backend, finder, defaults, log } = this.#options;
    const netns = finder.find(pod);
    const redirection = podRedirection(pod, defaults);
    const entry: Entry = { pod, netns, installed: undefined, acknowledged: netns !== undefined };
    this.#entries.set(pod.uid, entry);
    if (netns === undefined) return log.warn("namespace of an enrolled pod not found", at(pod));
    const state = verifyRules ? await backend.verify(netns, redirection) : "ok";
    if (state !== "ok") {
      log.warn("rules of an enrolled pod were not as they should be: mending", {
        ...at(pod),
        state,
      });
      await backend.install(netns, redirection);
    }
    entry.installed = redirection;
  }

  /** Enrols a pod, or brings it up to date. Rejects with AgentError; what was done stays. */
  async join(pod: PodView): Promise<void> {
    const before = this.#entries.get(pod.uid);
    const wasEnabled = pod.annotations[REDIRECTION_ANNOTATION] === "enabled";
    try {
      const entry = this.#captured(pod, before);
      if (entry === undefined) return;
      await this.#options.probes.set(pod.uid, pod.ips);
      await this.#installRules(entry);
      await this.#tellZtunnel(entry);
      if (!wasEnabled) this.#options.log.info("pod enrolled", at(pod));
      await this.#annotate(pod, "enabled");
    } catch (error) {
      if (before?.netns !== undefined || !wasEnabled) await this.#annotateFailure(pod);
      throw error;
    }
  }

  /**
   * Takes a pod out. `running` tells whether its namespace must be cleaned: a pod that is gone takes
   * its rules with it. Never waits for ztunnel longer than one deadline.
   */
  async leave(pod: PodView, running: boolean): Promise<void> {
    const { backend, finder, probes, ztunnel, log } = this.#options;
    const entry = this.#entries.get(pod.uid);
    const netns = entry?.netns ?? (running ? finder.find(pod) : undefined);
    if (running && netns !== undefined) await backend.remove(netns);
    this.#entries.delete(pod.uid);
    await ztunnel.remove(pod.uid);
    await probes.remove(pod.uid);
    netns?.close();
    log.info("pod left the mesh", at(pod));
    if (!pod.deleting) await this.#annotate(pod, undefined);
  }

  /** ztunnel refused a pod that had been acknowledged before. */
  forgetAcknowledgement(uid: string): PodView | undefined {
    const entry = this.#entries.get(uid);
    if (entry !== undefined) entry.acknowledged = false;
    return entry?.pod;
  }

  /** Closes the descriptors; the rules stay, and so does the mesh. */
  close(): void {
    for (const { netns } of this.#entries.values()) netns?.close();
    this.#entries.clear();
  }

  /** The pod's entry with its namespace; undefined while the pod has neither namespace nor address. */
  #captured(pod: PodView, before: Entry | undefined): Entry | undefined {
    const entry = before ?? { pod, netns: undefined, installed: undefined, acknowledged: false };
    entry.pod = pod;
    entry.netns ??= this.#options.finder.find(pod);
    if (entry.netns !== undefined) {
      this.#entries.set(pod.uid, entry);
      return entry;
    }
    if (pod.ips.length === 0) return undefined;
    const message = "the pod has an address but no process in a namespace that owns it";
    throw new AgentError("netns-not-found", message);
  }

  async #installRules(entry: Entry): Promise<void> {
    const { backend, defaults } = this.#options;
    const wanted = podRedirection(entry.pod, defaults);
    if (isDeepStrictEqual(entry.installed, wanted)) return;
    entry.installed = undefined;
    await backend.install(entry.netns!, wanted);
    entry.installed = wanted;
  }

  async #tellZtunnel(entry: Entry): Promise<void> {
    if (entry.acknowledged) return;
    await this.#options.ztunnel.add(entry.pod.uid);
    entry.acknowledged = true;
  }

  async #annotate(pod: PodView, state: RedirectionState): Promise<void> {
    if (pod.annotations[REDIRECTION_ANNOTATION] === state) return;
    await this.#options.annotator.setRedirection(pod, state);
  }

  /** The failure itself is what gets reported; that it cannot be annotated is only logged. */
  async #annotateFailure(pod: PodView): Promise<void> {
    try {
      await this.#annotate(pod, "pending");
    } catch (error) {
      const fields = { ...at(pod), error: errorMessage(error) };
      this.#options.log.warn("cannot annotate a pod", fields);
    }
  }
}

function zdsPod({ pod, netns }: Entry): ZdsPod {
  const { uid, name, namespace, serviceAccount } = pod;
  return { uid, name, namespace, serviceAccount, netnsFd: netns?.fd };
}

function at({ namespace, name }: PodView): { namespace: string; pod: string } {
  return { namespace, pod: name };
}
