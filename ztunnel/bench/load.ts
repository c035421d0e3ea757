// The load and its figures: wrk for requests, iperf3 for bytes.

import type { Topology } from "./topology.ts";
import { BULK_PORT, HTTP_PORT } from "./topology.ts";

/** One figure of the table. */
export interface Row {
  readonly name: string;
  readonly unit: string;
  /** True when a smaller value is better. */
  readonly lowerIsBetter: boolean;
  measure(topology: Topology, target: string, seconds: number): number;
}

function wrk(topology: Topology, target: string, seconds: number, args: readonly string[]): string {
  const url = `http://${target}:${HTTP_PORT}/`;
  return topology.run("client", ["wrk", "-t1", `-d${seconds}`, "--latency", ...args, url]);
}

function requestsPerSecond(output: string): number {
  return Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1] ?? Number.NaN);
}

function medianMicroseconds(output: string): number {
  const [, value, unit] = /50%\s+([\d.]+)(us|ms|s)/.exec(output) ?? [];
  return Number(value) * { us: 1, ms: 1000, s: 1_000_000 }[unit as "us" | "ms" | "s"];
}

interface IperfReport {
  readonly end: { readonly sum_received: { readonly bits_per_second: number } };
}

export const ROWS: readonly Row[] = [
  {
    name: "keep-alive, 32 connections",
    unit: "req/s",
    lowerIsBetter: false,
    measure: (topology, target, seconds) =>
      requestsPerSecond(wrk(topology, target, seconds, ["-c32"])),
  },
  {
    name: "keep-alive, 1 connection, p50",
    unit: "µs",
    lowerIsBetter: true,
    measure: (topology, target, seconds) =>
      medianMicroseconds(wrk(topology, target, seconds, ["-c1"])),
  },
  {
    name: "a connection per request, 32 at a time",
    unit: "req/s",
    lowerIsBetter: false,
    measure: (topology, target, seconds) =>
      requestsPerSecond(wrk(topology, target, seconds, ["-c32", "-H", "Connection: close"])),
  },
  {
    name: "bulk, 1 stream",
    unit: "Gbit/s",
    lowerIsBetter: false,
    measure: (topology, target, seconds) => {
      const output = topology.run("client", [
        "iperf3",
        "-c",
        target,
        "-p",
        String(BULK_PORT),
        "-t",
        String(seconds),
        "-J",
      ]);
      return (JSON.parse(output) as IperfReport).end.sum_received.bits_per_second / 1e9;
    },
  },
];
