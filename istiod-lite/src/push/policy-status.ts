// Tells the author of an AuthorizationPolicy what ztunnels make of it: the ZtunnelAccepted condition,
// written to the object when a writer is there and shown by /debug either way. Coalesces by policy.

import type { Resource } from "@ambit/api/resources/kinds.ts";
import type { Clock } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import {
  keyOf,
  keyText,
  type ResourceKey,
  type ResourceWriter,
} from "@ambit/common/resources/source.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { PolicyStatus } from "../model/mesh-model.ts";

export interface PolicyVerdict {
  readonly key: ResourceKey;
  readonly accepted: boolean;
  readonly reason: string;
  readonly message: string;
}

export interface PolicyStatusOptions {
  readonly writer: ResourceWriter | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

const CONDITION = "ZtunnelAccepted";

export class PolicyStatuses {
  readonly #options: PolicyStatusOptions;
  readonly #verdicts = new Map<string, PolicyVerdict>();
  /** Not written yet. */
  readonly #pending = new Map<string, PolicyVerdict>();
  #writing = false;

  constructor(options: PolicyStatusOptions) {
    this.#options = options;
  }

  /** The latest verdict on every policy. */
  get verdicts(): readonly PolicyVerdict[] {
    return [...this.#verdicts.values()];
  }

  update(statuses: readonly PolicyStatus[]): void {
    for (const { policy, translated } of statuses) {
      const { accepted, reason, message } = translated;
      const key = keyOf(policy);
      const verdict = { key, accepted, reason, message };
      this.#verdicts.set(keyText(key), verdict);
      if (!isWritten(policy, verdict)) this.#pending.set(keyText(key), verdict);
    }
    if (!this.#writing) void this.#writePending();
  }

  forget(key: ResourceKey): void {
    this.#verdicts.delete(keyText(key));
    this.#pending.delete(keyText(key));
  }

  /** One write after the other; what comes meanwhile joins. A failed write is reported, not repeated. */
  async #writePending(): Promise<void> {
    const { writer, log } = this.#options;
    this.#writing = true;
    for (const [text, verdict] of this.#pending) {
      this.#pending.delete(text);
      try {
        await writer?.patch(verdict.key, (resource) => this.#withCondition(resource, verdict));
      } catch (error) {
        log.warn("cannot write status", { policy: text, error: errorMessage(error) });
      }
    }
    this.#writing = false;
  }

  #withCondition(resource: Resource, verdict: PolicyVerdict): Resource {
    if (resource.kind !== "AuthorizationPolicy" || isWritten(resource, verdict)) return resource;
    const others = (resource.status?.conditions ?? []).filter(({ type }) => type !== CONDITION);
    const condition = {
      type: CONDITION,
      status: verdict.accepted ? ("True" as const) : ("False" as const),
      reason: verdict.reason,
      message: verdict.message,
      lastTransitionTime: new Date(this.#options.clock.nowMs()).toISOString(),
    };
    return { ...resource, status: { ...resource.status, conditions: [...others, condition] } };
  }
}

/** The object already says so. Writing again would be an event, and the event another write. */
function isWritten(
  policy: PolicyStatus["policy"],
  { accepted, reason, message }: PolicyVerdict,
): boolean {
  const written = policy.status?.conditions?.find(({ type }) => type === CONDITION);
  return (
    written?.status === (accepted ? "True" : "False") &&
    written.reason === reason &&
    written.message === message
  );
}
