// Metric families as text: the Prometheus format (names as given) and OpenMetrics 1.0 (counters end in
// _total, body ends in # EOF). Also sums the families of several threads. Pure functions.

/** A family in the shape of prom-client's getMetricsAsJSON(). */
export interface MetricFamily {
  readonly name: string;
  readonly help: string;
  /** counter, gauge or histogram. */
  readonly type: string;
  readonly values: readonly MetricSample[];
}

export interface MetricSample {
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
  /** Set where it differs from the family's: `x_bucket`, `x_sum`, `x_count`. */
  readonly metricName?: string;
}

export type MetricsFormat = "prometheus" | "openmetrics";

const TOTAL = "_total";

/** The whole page. Families of equal name must have been merged by sumFamilies(). */
export function renderMetrics(families: readonly MetricFamily[], format: MetricsFormat): string {
  const lines: string[] = [];
  for (const family of families) appendFamily(lines, family, format);
  if (format === "openmetrics") lines.push("# EOF");
  lines.push("");
  return lines.join("\n");
}

function appendFamily(lines: string[], family: MetricFamily, format: MetricsFormat): void {
  const counts = format === "openmetrics" && family.type === "counter";
  const name = counts ? withoutTotal(family.name) : family.name;
  lines.push(`# HELP ${name} ${escapeHelp(family.help)}`, `# TYPE ${name} ${family.type}`);
  for (const { labels, value, metricName } of family.values) {
    const sample = counts ? name + TOTAL : (metricName ?? name);
    lines.push(`${sample}${labelText(labels)} ${numberText(value)}`);
  }
}

function withoutTotal(name: string): string {
  return name.endsWith(TOTAL) ? name.slice(0, -TOTAL.length) : name;
}

function labelText(labels: MetricSample["labels"]): string {
  let text = "";
  for (const key in labels) {
    text += `${text === "" ? "{" : ","}${key}="${escapeLabel(String(labels[key]))}"`;
  }
  return text === "" ? "" : `${text}}`;
}

function escapeLabel(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function numberText(value: number): string {
  if (Number.isFinite(value)) return String(value);
  if (Number.isNaN(value)) return "NaN";
  return value > 0 ? "+Inf" : "-Inf";
}

/** Adds samples of equal family and labels, for instance those of worker threads. */
export function sumFamilies(lists: readonly (readonly MetricFamily[])[]): MetricFamily[] {
  const families = new Map<string, { family: MetricFamily; samples: Map<string, MetricSample> }>();
  for (const family of lists.flat()) {
    const entry = families.getOrInsertComputed(family.name, () => ({ family, samples: new Map() }));
    for (const sample of family.values) {
      const key = sampleKey(sample);
      const value = (entry.samples.get(key)?.value ?? 0) + sample.value;
      entry.samples.set(key, { ...sample, value });
    }
  }
  return [...families.values()].map(({ family, samples }) => ({
    ...family,
    values: [...samples.values()],
  }));
}

function sampleKey({ metricName, labels }: MetricSample): string {
  const pairs = Object.keys(labels).sort();
  return JSON.stringify([metricName, ...pairs.map((name) => [name, labels[name]])]);
}
