// The metrics of ztunnel's main thread: pods, the xDS stream, the build and the process. Traffic is
// counted in the workers (telemetry/traffic-metrics).

import { readdirSync, readFileSync } from "node:fs";
import { Counter, Gauge, Registry } from "prom-client";
import type { Family } from "@ambit/common/telemetry/exposition.ts";
import type { Config } from "./config.ts";
import type { PodRegistry } from "./inpod/pod-registry.ts";

export class MainMetrics {
  readonly #registry = new Registry();
  readonly xdsMessages: Counter<"url">;
  readonly xdsBytes: Counter<"url">;
  readonly xdsTerminations: Counter<"reason">;

  constructor(config: Config, pods: PodRegistry) {
    const registers = [this.#registry];
    const gauge = (name: string, help: string, value: () => number) =>
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(value());
        },
      });
    gauge(
      "workload_manager_active_proxy_count",
      "The total number of proxied workloads (unstable)",
      () => pods.counts.active,
    );
    gauge(
      "workload_manager_pending_proxy_count",
      "The total number of pods waiting to be proxied (unstable)",
      () => pods.counts.pending,
    );
    gauge(
      "workload_manager_proxies_started_total",
      "The total number of proxies that were started (unstable)",
      () => pods.counts.started,
    );
    gauge(
      "workload_manager_proxies_stopped_total",
      "The total number of proxies that were stopped (unstable)",
      () => pods.counts.stopped,
    );
    gauge(
      "process_open_fds",
      "Number of open file descriptors (unstable)",
      () => readdirSync("/proc/self/fd").length,
    );
    gauge(
      "process_max_fds",
      "Maximum number of open file descriptors (unstable)",
      fileDescriptorLimit,
    );
    gauge("process_resident_memory_bytes", "Resident memory in bytes (unstable)", () =>
      process.memoryUsage.rss(),
    );
    gauge(
      "ambit_event_loop_utilization",
      "Share of time the main thread is busy (unstable)",
      () => performance.eventLoopUtilization().utilization,
    );
    new Gauge({
      name: "istio_build",
      help: "Istio component build info",
      labelNames: ["component", "tag"],
      registers,
    })
      .labels("ztunnel", config.version)
      .set(1);
    this.xdsMessages = new Counter({
      name: "istio_xds_message_total",
      help: "Total number of messages received (unstable)",
      labelNames: ["url"],
      registers,
    });
    this.xdsBytes = new Counter({
      name: "istio_xds_message_bytes_total",
      help: "Total number of bytes received (unstable)",
      labelNames: ["url"],
      registers,
    });
    this.xdsTerminations = new Counter({
      name: "istio_xds_connection_terminations_total",
      help: "The total number of completed connections to xds server (unstable)",
      labelNames: ["reason"],
      registers,
    });
  }

  async collect(): Promise<Family[]> {
    return (await this.#registry.getMetricsAsJSON()).map((metric) => ({
      name: metric.name,
      help: metric.help,
      type: String(metric.type),
      values: metric.values.map(({ labels, value }) => ({
        value,
        labels: labels as Record<string, string | number>,
      })),
    }));
  }
}

/** The soft limit, from /proc: Node has no call for it. */
function fileDescriptorLimit(): number {
  const limits = readFileSync("/proc/self/limits", "utf8");
  return Number(/Max open files\s+(\d+)/.exec(limits)?.[1] ?? 0);
}
