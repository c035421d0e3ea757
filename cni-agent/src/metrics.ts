// The agent's metrics: Istio's names where Istio has them.

import { Metrics } from "@ambit/common/telemetry/metrics.ts";

export interface AgentMetrics {
  readonly registry: Metrics;
  readonly events: { inc(labels: { type: string }): void };
  readonly failures: { inc(labels: { code: string }): void };
  readonly repairs: { inc(): void };
}

/** Values read at scrape time. */
export interface AgentGauges {
  readonly ztunnels: () => number;
  readonly pods: () => number;
  readonly provenPods: () => number;
}

export function agentMetrics({ ztunnels, pods, provenPods }: AgentGauges): AgentMetrics {
  const registry = new Metrics();
  registry.gauge("ztunnel_connected", "Connected ztunnels", [], (gauge) => gauge.set(ztunnels()));
  registry.gauge("ambit_cni_enrolled_pods", "Pods of this node in the mesh", [], (gauge) =>
    gauge.set(pods()),
  );
  registry.gauge(
    "ambit_cni_proven_pods",
    "Pods of this node whose capture was proven by a connection from inside them",
    [],
    (gauge) => gauge.set(provenPods()),
  );
  return {
    registry,
    repairs: registry.counter(
      "ambit_cni_rules_repaired_total",
      "Enrolled pods whose rules somebody had changed, mended",
    ),
    events: registry.counter("nodeagent_reconcile_events_total", "Reconciled pod events", ["type"]),
    failures: registry.counter("ambit_cni_failures_total", "Steps that failed, by reason", [
      "code",
    ]),
  };
}
