// Small questions about pods that several parts of the runtime ask. Pure.

import type { Namespace, Pod } from "@ambit/api/resources/kinds.ts";
import type { ResourceKey } from "@ambit/common/resources/source.ts";

/** Where a pod's network namespace is: how the node agent finds it without a container runtime. */
export const NETNS_ANNOTATION = "ambit.io/netns";
/** Pods that stand for processes the runtime starts by itself: ztunnel. */
export const STATIC_ANNOTATION = "ambit.io/static";
/** Written by the node agent; the single source of truth (istio.md §1.2). */
export const REDIRECTION_ANNOTATION = "ambient.istio.io/redirection";
/** The node agent's, on nodes: its reason is how pods are captured, its message why not by eBPF. */
export const REDIRECTION_CONDITION = "ambit.io/Redirection";
export const PROBES_CONDITION = "ambit.io/Probes";
const DATAPLANE_MODE = "istio.io/dataplane-mode";
const SIDECAR_ANNOTATION = "sidecar.istio.io/status";
/** The node agent's default EXCLUDE_NAMESPACES. */
const EXCLUDED_NAMESPACES: ReadonlySet<string> = new Set(["kube-system"]);

export function podKey(pod: Pod): ResourceKey & { kind: "Pod" } {
  const { namespace = "", name } = pod.metadata;
  return { kind: "Pod", namespace, name };
}

/** Whether the labels ask for the mesh (istio.md §1.3): the pod's word beats its namespace's. */
export function wantsMesh(pod: Pod, namespace: Namespace | undefined): boolean {
  if (pod.spec.hostNetwork === true) return false;
  if (pod.metadata.annotations?.[SIDECAR_ANNOTATION] !== undefined) return false;
  if (EXCLUDED_NAMESPACES.has(pod.metadata.namespace ?? "")) return false;
  const own = pod.metadata.labels?.[DATAPLANE_MODE];
  if (own === "ambient" || own === "none") return own === "ambient";
  return namespace?.metadata.labels?.[DATAPLANE_MODE] === "ambient";
}

export function isEnrolled(pod: Pod): boolean {
  return pod.metadata.annotations?.[REDIRECTION_ANNOTATION] === "enabled";
}

export function isReady(pod: Pod): boolean {
  return (
    pod.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") ===
    true
  );
}

/** Succeeded and Failed pods are history: they get no traffic and are not started. */
export function isTerminal(pod: Pod): boolean {
  return pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed";
}

export function isStatic(pod: Pod): boolean {
  return pod.metadata.annotations?.[STATIC_ANNOTATION] === "true";
}

export function podIps(pod: Pod): string[] {
  const { podIPs = [], podIP } = pod.status ?? {};
  return podIPs.length > 0 ? podIPs.map(({ ip }) => ip) : podIP === undefined ? [] : [podIP];
}

export function matchesLabels(
  selector: Readonly<Record<string, string>>,
  labels: Readonly<Record<string, string>> = {},
): boolean {
  return Object.entries(selector).every(([key, value]) => labels[key] === value);
}
