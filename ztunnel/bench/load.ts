// The load and its figures: wrk for requests, iperf3 for bytes.

import type { Topology } from "./topology.ts";
import { BULK_PORT, HTTP_PORT } from "./topology.ts";

/** One figure of the table. */
export interface Row {
  /** What `--rows` calls it. */
  readonly key: string;
  readonly name: string;
  readonly unit: string;
  /** How long it runs before it is measured; WARM_UP_SECONDS unless said otherwise. */
  readonly warmUpSeconds?: number;
  /** True when a smaller value is better. */
  readonly lowerIsBetter: boolean;
  measure(topology: Topology, target: string, seconds: number): Measured;
}

export interface Measured {
  readonly value: number;
  /** Requests answered, or mebibytes moved: what processor time is counted per. */
  readonly work: number;
}

function wrk(topology: Topology, target: string, seconds: number, args: readonly string[]): string {
  const url = `http://${target}:${HTTP_PORT}/`;
  return topology.run("client", ["wrk", "-t1", `-d${seconds}`, "--latency", ...args, url]);
}

function requestsPerSecond(output: string): Measured {
  const value = Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1] ?? Number.NaN);
  return { value, work: requests(output) };
}

function requests(output: string): number {
  return Number(/(\d+) requests in/.exec(output)?.[1] ?? Number.NaN);
}

function medianMicroseconds(output: string): Measured {
  const [, number, unit] = /50%\s+([\d.]+)(us|ms|s)/.exec(output) ?? [];
  const value = Number(number) * { us: 1, ms: 1000, s: 1_000_000 }[unit as "us" | "ms" | "s"];
  return { value, work: requests(output) };
}

interface IperfReport {
  readonly end: {
    readonly sum_received: { readonly bits_per_second: number; readonly bytes: number };
  };
}

export const ROWS: readonly Row[] = [
  {
    key: "keep-alive",
    name: "keep-alive, 32 connections",
    unit: "req/s",
    lowerIsBetter: false,
    measure: (topology, target, seconds) =>
      requestsPerSecond(wrk(topology, target, seconds, ["-c32"])),
  },
  {
    key: "latency",
    name: "keep-alive, 1 connection, p50",
    unit: "µs",
    lowerIsBetter: true,
    measure: (topology, target, seconds) =>
      medianMicroseconds(wrk(topology, target, seconds, ["-c1"])),
  },
  {
    key: "connections",
    name: "a connection per request, 32 at a time",
    unit: "req/s",
    // A connection runs through far more code than a request: some forty thousand settle it.
    warmUpSeconds: 10,
    lowerIsBetter: false,
    measure: (topology, target, seconds) =>
      requestsPerSecond(wrk(topology, target, seconds, ["-c32", "-H", "Connection: close"])),
  },
  {
    key: "bulk",
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
      const { bits_per_second: bits, bytes } = (JSON.parse(output) as IperfReport).end.sum_received;
      return { value: bits / 1e9, work: bytes / 2 ** 20 };
    },
  },
];
