// The agent's metrics: Istio's names where Istio has them.

import { Metrics } from "@ambit/common/telemetry/metrics.ts";
import type { Choice, ProbeChoice } from "./rules/redirection-choice.ts";

export interface AgentMetrics {
  readonly registry: Metrics;
  readonly events: { inc(labels: { type: string }): void };
  readonly failures: { inc(labels: { code: string }): void };
  readonly repairs: { inc(): void };
  readonly podRepairs: { inc(labels: { type: string; result: string }): void };
}

/** Values read at scrape time. */
export interface AgentGauges {
  readonly ztunnels: () => number;
  readonly pods: () => number;
  readonly provenPods: () => number;
  readonly redirection: () => Choice;
  readonly probes: () => ProbeChoice;
  /** What the BPF programs counted, by event. */
  readonly bpfEvents: () => ReadonlyMap<string, number>;
  /** Pods that talk directly, by what is in the way of a shortcut. */
  readonly shortcuts: () => ReadonlyMap<string, number>;
}

export function agentMetrics(gauges: AgentGauges): AgentMetrics {
  const { ztunnels, pods, provenPods } = gauges;
  const registry = new Metrics();
  addRedirection(registry, gauges);
  addProbes(registry, gauges);
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
    podRepairs: registry.counter(
      "istio_cni_repair_pods_repaired_total",
      "Pods that could not be captured, by what was done about it",
      ["type", "result"],
    ),
    events: registry.counter("nodeagent_reconcile_events_total", "Reconciled pod events", ["type"]),
    failures: registry.counter("ambit_cni_failures_total", "Steps that failed, by reason", [
      "code",
    ]),
  };
}

function addProbes(registry: Metrics, { probes }: AgentGauges): void {
  registry.gauge(
    "ambit_cni_probe_exemption",
    "1 for how kubelet's probes are known: by its sockets, or by translated addresses",
    ["by"],
    (gauge) => {
      gauge.reset();
      gauge.labels(probes().by).set(1);
    },
  );
  registry.gauge(
    "ambit_cni_probe_exemption_fallback",
    "1 while kubelet's sockets cannot be known, by the check that failed",
    ["check"],
    (gauge) => {
      gauge.reset();
      const { fallback } = probes();
      if (fallback !== undefined) gauge.labels(fallback.check).set(1);
    },
  );
}

function addRedirection(registry: Metrics, gauges: AgentGauges): void {
  const { redirection, bpfEvents, shortcuts } = gauges;
  registry.gauge(
    "ambit_cni_redirection",
    "1 for the way in which this node's pods are captured",
    ["backend"],
    (gauge) => {
      gauge.reset();
      gauge.labels(redirection().backend).set(1);
    },
  );
  registry.gauge(
    "ambit_cni_redirection_fallback",
    "1 while eBPF cannot be used, by the check that failed",
    ["check"],
    (gauge) => {
      gauge.reset();
      const { fallback } = redirection();
      if (fallback !== undefined) gauge.labels(fallback.check).set(1);
    },
  );
  registry.gauge(
    "ambit_cni_shortcut_pods",
    'Pods that talk directly, by what is in the way of a shortcut for that; "": nothing',
    ["problem"],
    (gauge) => {
      gauge.reset();
      for (const [problem, pods] of shortcuts()) gauge.labels(problem).set(pods);
    },
  );
  registry.collectFrom(async () => [
    {
      name: "ambit_bpf_events_total",
      help: "What the BPF programs of redirection did, refused and failed at",
      type: "counter",
      values: [...bpfEvents()].map(([event, value]) => ({
        labels: { event: event.toLowerCase() },
        value,
      })),
    },
  ]);
}
