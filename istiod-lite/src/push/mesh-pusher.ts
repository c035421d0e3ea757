// From resource events to pushed resources: feeds the model, debounces, and applies what the model says
// changed to the store. Owns the list of problems of the source.

import type { Clock } from "@ambit/common/process/clock.ts";
import {
  formatProblem,
  type ResourceEvent,
  type ResourceHandler,
  type SourceProblem,
} from "@ambit/common/resources/source.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import {
  type MeshSnapshotSink,
  TYPE_AUTHORIZATION,
  type XdsChange,
} from "@ambit/common/xds/resource-type.ts";
import type { ObjectStatus } from "../status/object-status.ts";
import type { AppliedTracker } from "../status/applied.ts";
import type { StatusWriter } from "../status/status-writer.ts";
import type { MeshSettings } from "../translate/settings.ts";
import { Debounce } from "./debounce.ts";

/** What the pusher needs of the mesh model. */
export interface Model {
  apply(event: ResourceEvent): void;
  configure(changes: Partial<MeshSettings>): void;
  /** What changed since the last call, translated. */
  flush(): readonly XdsChange[];
  /** What became of the objects translated since the last call. */
  takeStatuses(): readonly ObjectStatus[];
}

export interface PushObserver {
  event(event: ResourceEvent): void;
  debounced(waitedMs: number): void;
  /** `tookMs` is the CPU time of translating. */
  flushed(changes: readonly XdsChange[], tookMs: number): void;
  problems(count: number): void;
}

export interface MeshPusherOptions {
  readonly model: Model;
  readonly sink: MeshSnapshotSink;
  readonly clock: Clock;
  readonly log: Logger;
  readonly debounceAfterMs: number;
  readonly debounceMaxMs: number;
  readonly observer: PushObserver;
  readonly statuses: StatusWriter;
  readonly applied: AppliedTracker;
}

export class MeshPusher implements ResourceHandler {
  readonly #options: MeshPusherOptions;
  readonly #debounce: Debounce;
  #problems: readonly SourceProblem[] = [];

  constructor(options: MeshPusherOptions) {
    this.#options = options;
    this.#debounce = new Debounce({
      clock: options.clock,
      afterMs: options.debounceAfterMs,
      maxMs: options.debounceMaxMs,
      fire: (waitedMs) => {
        options.observer.debounced(waitedMs);
        this.flush();
      },
    });
  }

  /** What the source reports as wrong now. */
  get problems(): readonly SourceProblem[] {
    return this.#problems;
  }

  onEvents(events: readonly ResourceEvent[]): void {
    const { model, observer, statuses, applied } = this.#options;
    for (const event of events) {
      observer.event(event);
      model.apply(event);
      if (event.type !== "delete") continue;
      statuses.forget(event.key);
      applied.forget(event.key);
    }
    if (events.length > 0) this.#debounce.touch();
  }

  /** Settings of the mesh that hold from now on; pushed like any change. */
  configure(changes: Partial<MeshSettings>): void {
    this.#options.model.configure(changes);
    this.#debounce.touch();
  }

  onProblems(problems: readonly SourceProblem[]): void {
    const { log, observer } = this.#options;
    const known = new Set(this.#problems.map(formatProblem));
    const current = new Set(problems.map(formatProblem));
    for (const problem of current.difference(known)) log.warn("manifest problem", { problem });
    for (const problem of known.difference(current)) log.info("problem mended", { problem });
    this.#problems = problems;
    observer.problems(problems.length);
  }

  /** Pushes now what is waiting. Policies go first: workloads name them. */
  flush(): void {
    const { model, sink, clock, log, observer, statuses, applied } = this.#options;
    this.#debounce.cancel();
    const startMs = clock.monotonicMs();
    const changes = [...model.flush()].sort((a, b) => rank(a) - rank(b));
    observer.flushed(changes, clock.monotonicMs() - startMs);
    for (const change of changes) {
      const { typeUrl, upserts, removed } = change;
      if (upserts.length === 0 && removed.length === 0) continue;
      log.debug("pushing", {
        type: typeUrl,
        changed: upserts.length,
        removed: removed.length,
      });
      sink.apply(change);
    }
    const told = model.takeStatuses();
    statuses.update(told);
    applied.track(told);
  }

  close(): void {
    this.#debounce.cancel();
  }
}

function rank({ typeUrl }: XdsChange): number {
  return typeUrl === TYPE_AUTHORIZATION ? 0 : 1;
}
