// istio_tcp_sockets_open: accepted connections that we hold, tunnels with all their streams counted once.

import type { MetricFamily } from "./traffic-metrics.ts";

export class OpenSockets {
  /** Of local applications. */
  source = 0;
  /** Of whoever calls local applications. */
  destination = 0;

  collect(): MetricFamily[] {
    const values = (["source", "destination"] as const).map((reporter) => ({
      labels: { reporter },
      value: this[reporter],
    }));
    const help = "The current number of open TCP sockets (unstable)";
    return [{ name: "istio_tcp_sockets_open", help, type: "gauge", aggregator: "sum", values }];
  }
}
