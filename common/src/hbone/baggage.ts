// The `baggage` header of HBONE: who the peer is, for telemetry of workloads that xDS does not know.
// Istio's keys in Istio's order; values are not percent-encoded (ztunnel baggage.rs).

export type WorkloadKind = "deployment" | "cronjob" | "pod" | "job";

export interface Baggage {
  readonly clusterId?: string;
  readonly namespace?: string;
  readonly workloadKind?: WorkloadKind;
  readonly workloadName?: string;
  readonly serviceName?: string;
  readonly revision?: string;
  readonly region?: string;
  readonly zone?: string;
}

const KINDS: readonly WorkloadKind[] = ["deployment", "cronjob", "pod", "job"];

/** Only non-empty keys are written; an empty result means that there is nothing to say. */
export function encodeBaggage(baggage: Baggage): string {
  const entries: [string, string | undefined][] = [
    ["k8s.cluster.name", baggage.clusterId],
    ["k8s.namespace.name", baggage.namespace],
    [`k8s.${baggage.workloadKind ?? "deployment"}.name`, baggage.workloadName],
    ["service.name", baggage.serviceName],
    ["service.version", baggage.revision],
    ["cloud.region", baggage.region],
    ["cloud.availability_zone", baggage.zone],
  ];
  return entries
    .filter(([, value]) => value !== undefined && value !== "")
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}

/** Unknown keys are ignored, empty values are absent, the last of a repeated key wins. */
export function parseBaggage(header: string): Baggage {
  const found: { -readonly [K in keyof Baggage]: Baggage[K] } = {};
  for (const entry of header.split(",")) {
    const equals = entry.indexOf("=");
    const value = equals < 0 ? "" : entry.slice(equals + 1).trim();
    if (value === "") continue;
    const key = entry.slice(0, equals).trim();
    const field = FIELD_OF_KEY.get(key);
    if (field !== undefined) found[field] = value;
    const kind = KINDS.find((name) => key === `k8s.${name}.name`);
    if (kind === undefined) continue;
    found.workloadKind = kind;
    found.workloadName = value;
  }
  return found;
}

type TextField = Exclude<keyof Baggage, "workloadKind" | "workloadName">;

const FIELD_OF_KEY = new Map<string, TextField>([
  ["k8s.cluster.name", "clusterId"],
  ["k8s.namespace.name", "namespace"],
  ["service.name", "serviceName"],
  ["service.version", "revision"],
  ["cloud.region", "region"],
  ["cloud.availability_zone", "zone"],
]);
