// What is told of policy decisions: Istio's lines, at debug or at info where that is asked for, and how
// often each dry-run policy would have had a say. Owns the counts.

import type { Decision } from "@ambit/common/policy/evaluate.ts";
import type { LogFields, Logger } from "@ambit/common/telemetry/log.ts";
import type { Workload } from "../state/workload.ts";
import type { MetricFamily } from "./traffic-metrics.ts";

/** Past this many policies new ones are counted together: a mesh tries out a handful at a time. */
export const DRY_RUN_SERIES_MAX = 1_000;

/** What stands for a policy where there is none: no dry-run ALLOW policy matched. */
const NONE = "none";
const OTHERS = "others";

const TEXT_OF_REASON = {
  denied: "deny policy match",
  allowed: "allow policy match",
  "no-allow-policies": "no allow policies, allow",
  "no-allow-matched": "no allow policies matched",
} as const satisfies Record<Decision["reason"], string>;

interface Count {
  readonly policy: string;
  readonly verdict: "allow" | "deny";
  value: number;
}

export class PolicyTelemetry {
  readonly #log: Logger;
  readonly #level: "info" | "debug";
  readonly #counts = new Map<string, Count>();
  /** Keys that were warned about, by the workload as it was then: once is enough. */
  readonly #warned = new WeakMap<Workload, ReadonlySet<string>>();

  /** Decisions are told at info when `info`, else at debug. */
  constructor(log: Logger, info: boolean) {
    this.#log = log;
    this.#level = info ? "info" : "debug";
  }

  decided(workload: Workload, decision: Decision): void {
    for (const { policy, action } of decision.dryRunMatches) {
      this.#count(policy, action);
      this.#tell(`dry-run: ${action} policy match`, workload, { policy });
    }
    if (decision.dryRunMisses) {
      this.#count(NONE, "deny");
      this.#tell("dry-run: no allow policies match", workload);
    }
    this.#tell(TEXT_OF_REASON[decision.reason], workload, { policy: decision.policy });
  }

  /** A policy that a workload names and that is not there is skipped (ztunnel §4.1). */
  missing(workload: Workload, keys: readonly string[]): void {
    if (keys.length === 0) return;
    const warned = this.#warned.get(workload);
    for (const policy of keys) {
      if (warned?.has(policy)) continue;
      this.#log.warn("skipping unknown policy", { policy, workload: workload.uid });
    }
    if (warned?.size !== keys.length) this.#warned.set(workload, new Set(keys));
  }

  collect(): MetricFamily[] {
    if (this.#counts.size === 0) return [];
    return [
      {
        name: "ambit_policy_dry_run",
        help: "Connections that a dry-run policy would have allowed or denied (unstable)",
        type: "counter",
        aggregator: "sum",
        values: [...this.#counts.values()].map(({ policy, verdict, value }) => ({
          labels: { policy, verdict },
          value,
        })),
      },
    ];
  }

  #tell(message: string, { uid }: Workload, fields: LogFields = {}): void {
    if (this.#log.enabled(this.#level))
      this.#log[this.#level](message, { ...fields, workload: uid });
  }

  #count(named: string, verdict: Count["verdict"]): void {
    const isKnown = this.#counts.has(`${named} ${verdict}`);
    const policy = isKnown || this.#counts.size < DRY_RUN_SERIES_MAX ? named : OTHERS;
    const newCount = () => ({ policy, verdict, value: 0 });
    this.#counts.getOrInsertComputed(`${policy} ${verdict}`, newCount).value++;
  }
}
