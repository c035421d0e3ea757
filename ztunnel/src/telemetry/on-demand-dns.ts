// istio_on_demand_dns: names of workloads without addresses, by the source that dialed them.

import { spiffeId } from "@ambit/common/tls/identity.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";
import { sourceLabels } from "./traffic-labels.ts";
import { partyOfWorkload } from "./party.ts";
import type { MetricFamily } from "./traffic-metrics.ts";

/** Past this many series new ones are not counted: names come from the mesh, sources from the node. */
const SERIES_MAX = 10_000;

interface Series {
  readonly labels: Record<string, string>;
  value: number;
}

export class OnDemandDnsMetrics {
  readonly #series = new Map<string, Series>();

  count(source: Workload, hostname: string): void {
    const identity = spiffeId(workloadIdentity(source));
    const labels = { ...sourceLabels(partyOfWorkload(source), identity), hostname };
    const key = Object.values(labels).join("\u0000");
    const known = this.#series.get(key);
    if (known !== undefined) known.value++;
    else if (this.#series.size < SERIES_MAX) this.#series.set(key, { labels, value: 1 });
  }

  collect(): MetricFamily[] {
    if (this.#series.size === 0) return [];
    return [
      {
        name: "istio_on_demand_dns",
        help: "Lookups of the hostnames of workloads that have no address (unstable)",
        type: "counter",
        aggregator: "sum",
        values: [...this.#series.values()].map(({ labels, value }) => ({ labels, value })),
      },
    ];
  }
}
