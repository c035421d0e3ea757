// OpenMetrics text (and what Prometheus still asks for) from metric families, negotiated and compressed
// as ztunnel serves it (§7.1): families without samples are left out, the body ends with # EOF.

import type { HttpReply, HttpRequest } from "../process/http-server.ts";
import { encodeBody } from "./content-encoding.ts";

export interface Sample {
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
  /** For histograms: _bucket, _sum, _count. */
  readonly metricName?: string;
  /** Labels of one event that a counter's sample counted; only OpenMetrics can show them. */
  readonly exemplar?: Readonly<Record<string, string>>;
}

export interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly values: readonly Sample[];
}

/** Sums counters and gauges of the same name and labels, as from several workers. */
export function mergeFamilies(groups: readonly (readonly Family[])[]): Family[] {
  const merged = new Map<
    string,
    { family: Family; samples: Map<string, Sample & { value: number }> }
  >();
  for (const family of groups.flat()) {
    const entry = merged.getOrInsertComputed(family.name, () => ({ family, samples: new Map() }));
    for (const sample of family.values) {
      const key = JSON.stringify([sample.metricName, sample.labels]);
      const before = entry.samples.get(key);
      entry.samples.set(key, { ...sample, value: (before?.value ?? 0) + sample.value });
    }
  }
  return [...merged.values()].map(({ family, samples }) => ({
    ...family,
    values: [...samples.values()],
  }));
}

/** Exemplars only on request: readers of the classic text take them for an error. */
export function renderOpenMetrics(families: readonly Family[], exemplars = false): string {
  const lines: string[] = [];
  for (const { name, help, type, values } of families) {
    if (values.length === 0) continue;
    const base = type === "counter" ? name.replace(/_total$/, "") : name;
    lines.push(`# HELP ${base} ${help}.`.replace("..", "."), `# TYPE ${base} ${type}`);
    for (const sample of values) {
      const sampleName = sample.metricName ?? (type === "counter" ? `${base}_total` : base);
      const exemplar =
        exemplars && sample.exemplar !== undefined ? ` # ${renderLabels(sample.exemplar)} 1` : "";
      lines.push(`${sampleName}${renderLabels(sample.labels)} ${sample.value}${exemplar}`);
    }
  }
  lines.push("# EOF");
  return `${lines.join("\n")}\n`;
}

function renderLabels(labels: Readonly<Record<string, string | number>>): string {
  const entries = Object.entries(labels);
  if (entries.length === 0) return "";
  return `{${entries.map(([key, value]) => `${key}="${escapeValue(String(value))}"`).join(",")}}`;
}

function escapeValue(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

/** The classic Prometheus text: every name as it is, which istiod's dashboards rely on. */
export function renderPrometheus(families: readonly Family[]): string {
  const lines: string[] = [];
  for (const { name, help, type, values } of families) {
    if (values.length === 0) continue;
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    for (const { metricName, labels, value } of values) {
      lines.push(`${metricName ?? name}${renderLabels(labels)} ${value}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

/** The reply to a scrape of istiod: always the classic text, compressed by Accept-Encoding. */
export function prometheusReply(
  families: readonly Family[],
  request: Pick<HttpRequest, "headers">,
): Promise<HttpReply> {
  return reply(renderPrometheus(families), "text/plain; version=0.0.4; charset=utf-8", request);
}

/** The reply to a scrape: content type by Accept, compressed by Accept-Encoding. */
export function metricsReply(
  families: readonly Family[],
  request: Pick<HttpRequest, "headers">,
): Promise<HttpReply> {
  const open = request.headers.accept?.includes("application/openmetrics-text") ?? false;
  const type = open
    ? "application/openmetrics-text;charset=utf-8;version=1.0.0"
    : "text/plain; charset=utf-8";
  return reply(renderOpenMetrics(families, open), type, request);
}

async function reply(
  text: string,
  contentType: string,
  { headers }: Pick<HttpRequest, "headers">,
): Promise<HttpReply> {
  const encoded = await encodeBody(text, headers["accept-encoding"] ?? "");
  return {
    status: 200,
    body: encoded.body,
    headers: { "content-type": contentType, ...encoded.headers },
  };
}
