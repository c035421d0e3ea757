// The metrics of ztunnel's main thread: pods, the xDS stream, the build and the process. Traffic is
// counted in the workers (telemetry/traffic-metrics). All of these may still change: "(unstable)".

import { readdirSync, readFileSync } from "node:fs";
import type { Counter } from "prom-client";
import type { Family } from "@ambit/common/telemetry/exposition.ts";
import { Metrics } from "@ambit/common/telemetry/metrics.ts";
import type { Config } from "./config.ts";
import type { PodCounts } from "./inpod/pod-registry.ts";

/** What is measured at each scrape. */
export interface Measured {
  readonly pods: PodCounts;
  /** Share of time each thread is busy, by its name. */
  readonly threadUtilization: ReadonlyMap<string, number>;
}

export class MainMetrics {
  readonly #metrics = new Metrics({ unstable: true });
  readonly #measure: () => Measured;
  readonly xdsMessages: Counter<"url">;
  readonly xdsBytes: Counter<"url">;
  readonly xdsTerminations: Counter<"reason">;

  constructor(config: Config, measure: () => Measured) {
    this.#measure = measure;
    const metrics = this.#metrics;
    this.#describeProcess();
    metrics.collectFrom(() => Promise.resolve(this.#podFamilies()));
    const tag = config.nodeMetadata["ISTIO_VERSION"];
    metrics
      .gauge("istio_build", "Istio component build info", ["component", "tag"])
      .labels("ztunnel", typeof tag === "string" ? tag : config.version)
      .set(1);
    this.xdsMessages = metrics.counter(
      "istio_xds_message_total",
      "Total number of messages received",
      ["url"],
    );
    this.xdsBytes = metrics.counter(
      "istio_xds_message_bytes_total",
      "Total number of bytes received",
      ["url"],
    );
    this.xdsTerminations = metrics.counter(
      "istio_xds_connection_terminations_total",
      "The total number of completed connections to xds server",
      ["reason"],
    );
  }

  collect(): Promise<Family[]> {
    return this.#metrics.families();
  }

  #describeProcess(): void {
    const metrics = this.#metrics;
    metrics.gauge("process_open_fds", "Number of open file descriptors", [], (gauge) =>
      gauge.set(readdirSync("/proc/self/fd").length),
    );
    metrics.gauge("process_max_fds", "Maximum number of open file descriptors", [], (gauge) =>
      gauge.set(fileDescriptorLimit()),
    );
    metrics.gauge("process_resident_memory_bytes", "Resident memory", [], (gauge) =>
      gauge.set(process.memoryUsage.rss()),
    );
    metrics.gauge(
      "ambit_event_loop_utilization",
      "Share of time a thread is busy",
      ["thread"],
      (gauge) => {
        for (const [thread, share] of this.#measure().threadUtilization) {
          gauge.labels(thread).set(share);
        }
      },
    );
  }

  #podFamilies(): Family[] {
    const { active, pending, started, stopped } = this.#measure().pods;
    const one = (type: string) => (name: string, help: string, value: number) => ({
      name: `workload_manager_${name}`,
      help: `${help} (unstable)`,
      type,
      values: [{ labels: {}, value }],
    });
    const gauge = one("gauge");
    const counter = one("counter");
    return [
      gauge("active_proxy_count", "The total number of proxied workloads", active),
      gauge("pending_proxy_count", "The total number of pods waiting to be proxied", pending),
      counter("proxies_started_total", "The total number of proxies that were started", started),
      counter("proxies_stopped_total", "The total number of proxies that were stopped", stopped),
    ];
  }
}

/** The soft limit, from /proc: Node has no call for it. */
function fileDescriptorLimit(): number {
  const limits = readFileSync("/proc/self/limits", "utf8");
  return Number(/Max open files\s+(\d+)/.exec(limits)?.[1] ?? 0);
}
