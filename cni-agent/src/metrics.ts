// The agent's metrics: Istio's names where Istio has them.

import { Metrics } from "@ambit/common/telemetry/metrics.ts";

export interface AgentMetrics {
  readonly registry: Metrics;
  readonly events: { inc(labels: { type: string }): void };
  readonly failures: { inc(labels: { code: string }): void };
}

/** Values read at scrape time. */
export interface AgentGauges {
  readonly ztunnels: () => number;
  readonly pods: () => number;
}

export function agentMetrics({ ztunnels, pods }: AgentGauges): AgentMetrics {
  const registry = new Metrics();
  registry.gauge("ztunnel_connected", "Connected ztunnels", [], (gauge) => gauge.set(ztunnels()));
  registry.gauge("ambit_cni_enrolled_pods", "Pods of this node in the mesh", [], (gauge) =>
    gauge.set(pods()),
  );
  return {
    registry,
    events: registry.counter("nodeagent_reconcile_events_total", "Reconciled pod events", ["type"]),
    failures: registry.counter("ambit_cni_failures_total", "Steps that failed, by reason", [
      "code",
    ]),
  };
}
