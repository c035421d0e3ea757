// The accounts of a worker's pods as metrics, and the division of its processor time among them: by what
// was done for each since the last look. An estimate: what serves no pod is shared out, too.

import type { PodUsage } from "@ambit/common/telemetry/pod-usage.ts";
import type { PodInfo } from "../state/mesh-state.ts";
import type { PodAccount } from "./pod-account.ts";
import type { MetricFamily } from "./traffic-metrics.ts";

/** A pod with its account. */
export interface Accountable {
  readonly uid: string;
  readonly info: PodInfo;
  readonly account: PodAccount;
}

export class PodMetrics {
  readonly #cpuSeconds: () => number;
  #chargedSeconds: number;

  /** `cpuSeconds` is what this thread has used since it began. */
  constructor(cpuSeconds: () => number) {
    this.#cpuSeconds = cpuSeconds;
    this.#chargedSeconds = cpuSeconds();
  }

  /** Everything of every pod, up to now. */
  usage(pods: Iterable<Accountable>): { readonly uid: string; readonly usage: PodUsage }[] {
    const all = [...pods];
    this.#divide(all);
    return all.map(({ uid, account }) => ({ uid, usage: account.usage() }));
  }

  collect(pods: Iterable<Accountable>): MetricFamily[] {
    const all = [...pods];
    this.#divide(all);
    const samples = (pick: (usage: PodUsage) => [Record<string, string>, number][]) =>
      all.flatMap(({ info, account }) =>
        pick(account.usage()).map(([labels, value]) => ({
          labels: { namespace: info.namespace, pod: info.name, ...labels },
          value,
        })),
      );
    const family = (
      name: string,
      help: string,
      type: "counter" | "gauge",
      values: MetricFamily["values"],
    ): MetricFamily => ({
      name: `ambit_ztunnel_pod_${name}`,
      help,
      type,
      aggregator: "sum",
      values,
    });
    return [
      family(
        "connections",
        "Open connections of a pod",
        "gauge",
        samples(({ inbound, outbound }) => [
          [{ direction: "inbound" }, inbound],
          [{ direction: "outbound" }, outbound],
        ]),
      ),
      family(
        "connections_opened_total",
        "Connections of a pod since it is served",
        "counter",
        samples(({ opened }) => [[{}, opened]]),
      ),
      family(
        "connections_refused_total",
        "Connections refused because their pod had as many as it may",
        "counter",
        samples(({ refused }) => [[{}, refused]]),
      ),
      family(
        "bytes_total",
        "Bytes that the pod's application sent and received",
        "counter",
        samples(({ sentBytes, receivedBytes }) => [
          [{ direction: "sent" }, sentBytes],
          [{ direction: "received" }, receivedBytes],
        ]),
      ),
      family(
        "cpu_seconds_total",
        "Processor time spent for the pod, estimated from its connections and bytes",
        "counter",
        samples(({ cpuSeconds }) => [[{}, cpuSeconds]]),
      ),
    ].filter(({ values }) => values.length > 0);
  }

  #divide(pods: readonly Accountable[]): void {
    const works = pods.map(({ account }) => account.takeWork());
    const total = works.reduce((sum, work) => sum + work, 0);
    const usedSeconds = this.#cpuSeconds();
    const seconds = usedSeconds - this.#chargedSeconds;
    this.#chargedSeconds = usedSeconds;
    if (total === 0) return;
    pods.forEach(({ account }, index) => account.charge((seconds * works[index]!) / total));
  }
}
