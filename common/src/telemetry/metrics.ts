// Metrics of one component: thin factories over a prom-client registry of its own, plus collectors that
// are asked at scrape time. Rendering and negotiation are in exposition.ts.

import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Family } from "./exposition.ts";

/** Asked at every scrape; must be quick or answer from a cache. */
export type Collector = () => Promise<readonly Family[]>;

/** Appended to the help of every metric whose name or labels may still change. */
const UNSTABLE = " (unstable)";

export class Metrics {
  readonly #registry = new Registry();
  readonly #collectors: Collector[] = [];
  readonly #suffix: string;

  /** With `unstable`, every help text made here says so. Stable families come from collectors. */
  constructor(options: { readonly unstable?: boolean } = {}) {
    this.#suffix = options.unstable === true ? UNSTABLE : "";
  }

  counter<L extends string = never>(
    name: string,
    help: string,
    labels: readonly L[] = [],
  ): Counter<L> {
    const registers = [this.#registry];
    return new Counter({ name, help: help + this.#suffix, labelNames: [...labels], registers });
  }

  /** `collect` refreshes the value just before a scrape. */
  gauge<L extends string = never>(
    name: string,
    help: string,
    labels: readonly L[] = [],
    collect?: (gauge: Gauge<L>) => void,
  ): Gauge<L> {
    const gauge: Gauge<L> = new Gauge({
      name,
      help: help + this.#suffix,
      labelNames: [...labels],
      registers: [this.#registry],
      ...(collect && { collect: () => collect(gauge) }),
    });
    return gauge;
  }

  histogram<L extends string = never>(
    name: string,
    help: string,
    buckets: readonly number[],
    labels: readonly L[] = [],
  ): Histogram<L> {
    return new Histogram({
      name,
      help: help + this.#suffix,
      labelNames: [...labels],
      buckets: [...buckets],
      registers: [this.#registry],
    });
  }

  /** Families computed elsewhere: by worker threads, or from live connections. */
  collectFrom(collector: Collector): void {
    this.#collectors.push(collector);
  }

  /** Every family with at least one sample, as of now. */
  async families(): Promise<Family[]> {
    const own = (await this.#registry.getMetricsAsJSON()).map((metric) => ({
      name: metric.name,
      help: metric.help,
      type: String(metric.type),
      values: metric.values.map((sample) => ({
        value: sample.value,
        labels: sample.labels as Record<string, string | number>,
        ...("metricName" in sample && { metricName: String(sample.metricName) }),
      })),
    }));
    const others = await Promise.all(this.#collectors.map((collect) => collect()));
    return [...own, ...others.flat()].filter(({ values }) => values.length > 0);
  }
}
