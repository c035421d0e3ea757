// Drives pods towards what their labels ask for: every event marks pods, a queue works them off, and
// failures come back by themselves. One look at the current state decides; events carry no decisions.

import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { ResourceEvent } from "@ambit/common/resources/source.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { enrolment, type Enrolment, type EnrolmentOptions } from "../enrolment/enrolment.ts";
import { failureCode } from "../errors.ts";
import type { AgentMetrics } from "../metrics.ts";
import { KeyedQueue } from "./keyed-queue.ts";
import type { NodeModel } from "./node-model.ts";
import { CAPTURE_ANNOTATION, hasMarks, REDIRECTION_ANNOTATION } from "./annotator.ts";
import type { PodRepair } from "./pod-repair.ts";
import type { PodMesh } from "./pod-mesh.ts";
import type { PodView } from "./pod-view.ts";
import type { ProbeExemption } from "./probe-exemption.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import type { ProbeTarget } from "../rules/backend.ts";

/** When rules are touched they are looked at at once, and then not again for this long. */
export const TOUCH_PAUSE_MS = 250;

export interface ReconcilerOptions {
  readonly model: NodeModel;
  readonly mesh: PodMesh;
  readonly probes: ProbeExemption;
  readonly enrolment: EnrolmentOptions;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: AgentMetrics;
  readonly repair: PodRepair;
  /** How often every enrolled pod is looked at: rules compared, capture proven. */
  readonly auditIntervalMs: number;
  /** As often, for what concerns the node itself. */
  onAudit(): void;
}

export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #queue: KeyedQueue;
  /** The last failure of each pod that has one: repetitions are not worth a line. */
  readonly #failing = new Map<string, string>();
  /** Pods whose next turn is to look closely. */
  readonly #audits = new Set<string>();
  /** Pods touched a moment ago: whether that happened again meanwhile. */
  readonly #touched = new Map<string, { again: boolean }>();
  /** Pods that are being let go, with when they are due again. */
  readonly #departures = new Map<string, Timer>();
  /** Pods that have left, as they were then, until their objects say so: what says else is older. */
  readonly #left = new Map<string, PodView>();
  #auditTimer: Timer | undefined;
  /** Before the start's own pass is over, events only update the model. */
  #started = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#queue = new KeyedQueue({
      clock: options.clock,
      work: (key) => this.#reconcile(key),
      onFailure: (key, error, retryInMs) => this.#onFailure(key, error, retryInMs),
    });
  }

  onEvents(events: readonly ResourceEvent[]): void {
    const changed = this.#options.model.apply(events);
    if (this.#started) for (const key of changed) this.#queue.add(key);
  }

  /**
   * Takes over what an earlier agent left (Istio §2.7): enrolled pods are adopted and their rules
   * mended, the probe exemption is written. Problems with single pods are logged and tried again.
   */
  async takeOver(verifyRules: boolean): Promise<void> {
    const { model, mesh, probes, log } = this.#options;
    const enrolled = [...model.pods()].filter((pod) => this.#wasEnrolled(pod));
    await Promise.all(
      enrolled.map((pod) =>
        mesh.adopt(pod, verifyRules).catch((error: unknown) => {
          log.error("cannot take over a pod", { pod: pod.key, error: errorMessage(error) });
        }),
      ),
    );
    const targets = enrolled.flatMap(({ ips, uid }) => {
      const target = { uid, slot: mesh.capturingSlot(uid) };
      return ips.map((ip): [Ip, ProbeTarget] => [ip, target]);
    });
    const complete = enrolled.every(({ ips }) => ips.length > 0);
    await probes.start(new Map(targets), complete);
    log.info("took over", { pods: enrolled.length });
  }

  /** Starts working on every pod, and on events from now on. */
  start(): void {
    this.#started = true;
    for (const { key } of this.#options.model.pods()) this.#queue.add(key);
    this.#auditLater();
  }

  /** A ztunnel is there: pods that waited for one need not wait longer, the others are proven anew. */
  onZtunnel(): void {
    const { mesh } = this.#options;
    mesh.forgetProofs();
    for (const key of mesh.keys()) this.#queue.add(key);
    this.#queue.retryNow();
  }

  /** Pods are to be captured another way than they are. */
  onRedirectionChanged(): void {
    const { mesh } = this.#options;
    mesh.forgetRules();
    for (const key of mesh.keys()) this.#queue.add(key);
  }

  /** Somebody may have changed an enrolled pod's rules. */
  onRulesTouched(key: string): void {
    const recent = this.#touched.get(key);
    if (recent !== undefined) {
      recent.again = true;
      return;
    }
    const touch = { again: false };
    this.#touched.set(key, touch);
    this.#options.clock.after(TOUCH_PAUSE_MS, () => {
      this.#touched.delete(key);
      if (touch.again) this.onRulesTouched(key);
    });
    this.#audit(key);
  }

  onRejected(uid: string, error: unknown): void {
    const pod = this.#options.mesh.forgetAcknowledgement(uid);
    if (pod === undefined) return;
    this.#options.log.warn("ztunnel refused a pod", { pod: pod.key, error: errorMessage(error) });
    this.#queue.add(pod.key);
  }

  /** Kubelet's probes are exempt in another way than before. */
  onProbesChanged(): void {
    this.#options.probes.renew().catch((error: unknown) => {
      this.#options.log.error("cannot exempt probes", { error: errorMessage(error) });
    });
  }

  whenIdle(): Promise<void> {
    return this.#queue.whenIdle();
  }

  close(): Promise<void> {
    this.#auditTimer?.cancel();
    for (const timer of this.#departures.values()) timer.cancel();
    this.#departures.clear();
    return this.#queue.close();
  }

  #audit(key: string): void {
    this.#audits.add(key);
    this.#queue.add(key);
  }

  #auditLater(): void {
    const { clock, mesh, auditIntervalMs } = this.#options;
    this.#auditTimer = clock.after(auditIntervalMs, () => {
      for (const key of mesh.keys()) this.#audit(key);
      this.#options.onAudit();
      this.#auditLater();
    });
  }

  #wasEnrolled(pod: PodView): boolean {
    const state = pod.annotations[REDIRECTION_ANNOTATION];
    return state === "enabled" && this.#decide(pod).enrolled;
  }

  #decide(pod: PodView) {
    const { model, enrolment: options } = this.#options;
    return enrolment(pod, model.namespace(pod.namespace), options);
  }

  #onFailure(key: string, error: unknown, retryInMs: number): void {
    const { log, metrics, model, repair } = this.#options;
    const code = failureCode(error);
    metrics.failures.inc({ code });
    const repeated = this.#failing.get(key) === code;
    this.#failing.set(key, code);
    const fields = { pod: key, code, retry_ms: retryInMs, error: errorMessage(error) };
    if (repeated) log.debug("pod still not as it should be", fields);
    else log.warn("pod not as it should be, trying again until it is", fields);
    const pod = model.pod(key);
    if (pod !== undefined) void repair.failed(pod, code);
  }

  async #reconcile(key: string): Promise<void> {
    await this.#step(key);
    this.#failing.delete(key);
    const pod = this.#options.model.pod(key);
    if (pod !== undefined) await this.#options.repair.recovered(pod);
  }

  async #step(key: string): Promise<void> {
    const { model, mesh, metrics } = this.#options;
    const pod = model.pod(key);
    const audit = this.#audits.delete(key);
    for (const former of mesh.entriesOf(key)) {
      if (former.uid === pod?.uid) continue;
      metrics.events.inc({ type: "delete" });
      await mesh.leave({ ...former, deleting: true }, false);
    }
    if (pod === undefined) return void this.#left.delete(key);
    const decision = this.#decide(pod);
    if (decision.enrolled || !this.#isOutdated(pod)) this.#left.delete(key);
    const known = mesh.pod(pod.uid) !== undefined;
    if (decision.enrolled) {
      if (!audit) metrics.events.inc({ type: known ? "update" : "add" });
      await mesh.join(pod, audit);
    } else if (known || (isAnnotated(pod) && !this.#left.has(key))) {
      await this.#letGo(pod, decision);
    }
  }

  /** What we wrote when it left cannot be seen yet: it bears the marks that it bore then. */
  #isOutdated(pod: PodView): boolean {
    const left = this.#left.get(pod.key);
    return left?.uid === pod.uid && isAnnotated(pod) && hasSameMarks(left, pod);
  }

  async #letGo(pod: PodView, { reason, message }: Enrolment): Promise<void> {
    const { mesh, metrics, log, clock } = this.#options;
    if (!mesh.isLeaving(pod.uid)) {
      log.info("pod is to leave the mesh", { pod: pod.key, reason, why: message });
      metrics.events.inc({ type: "remove" });
    }
    const restMs = await mesh.leave(pod, !pod.terminal);
    this.#departures.get(pod.key)?.cancel();
    this.#departures.delete(pod.key);
    if (restMs === 0) return void this.#left.set(pod.key, pod);
    const again = clock.after(restMs, () => this.#queue.add(pod.key));
    this.#departures.set(pod.key, again);
  }
}

function hasSameMarks({ annotations }: PodView, other: PodView): boolean {
  return hasMarks(other, {
    redirection: annotations[REDIRECTION_ANNOTATION],
    capture: annotations[CAPTURE_ANNOTATION],
  });
}

/** An agent, this one or an earlier one, has begun something with the pod. */
function isAnnotated({ annotations }: PodView): boolean {
  return (
    annotations[REDIRECTION_ANNOTATION] !== undefined ||
    annotations[CAPTURE_ANNOTATION] !== undefined
  );
}
