// The columns of `ambit local get` for each kind. Pure.

import type { Resource, ResourceKind } from "@ambit/api/resources/kinds.ts";
import { KINDS } from "@ambit/api/resources/kinds.ts";
import { isEnrolled, isReady, podIps } from "../local/pod-facts.ts";
import { serviceIps } from "../local/services.ts";
import { age } from "../output/age.ts";
import type { Column } from "../output/table.ts";

/** Namespace, name, what is particular to the kind, and the age. */
export function columnsOf(kind: ResourceKind, nowMs: number): Column<Resource>[] {
  return [
    ...(KINDS[kind].namespaced
      ? [{ title: "NAMESPACE", text: ({ metadata }: Resource) => metadata.namespace }]
      : []),
    { title: "NAME", text: ({ metadata }) => metadata.name },
    ...particulars(kind),
    { title: "AGE", text: ({ metadata }) => age(metadata.creationTimestamp, nowMs) },
  ];
}

function particulars(kind: ResourceKind): Column<Resource>[] {
  switch (kind) {
    case "Pod":
      return [
        column("READY", (pod) => pod.kind === "Pod" && isReady(pod)),
        column("STATUS", (pod) => (pod.kind === "Pod" ? (pod.status?.phase ?? "Pending") : "")),
        column("MESH", (pod) => (pod.kind === "Pod" && isEnrolled(pod) ? "enrolled" : "no")),
        column("IP", (pod) => (pod.kind === "Pod" ? podIps(pod)[0] : "")),
        column("NODE", (pod) => (pod.kind === "Pod" ? pod.spec.nodeName : "")),
      ];
    case "Deployment":
      return [column("READY", (object) => (object.kind === kind ? readiness(object) : ""))];
    case "Service":
      return [
        column("CLUSTER-IP", (object) =>
          object.kind === kind ? serviceIps(object).join(",") || object.spec.clusterIP : "",
        ),
        column("PORTS", (object) =>
          object.kind === kind
            ? (object.spec.ports ?? []).map((port) => `${port.port}/${port.protocol}`).join(",")
            : "",
        ),
      ];
    case "Namespace":
      return [
        column("MESH", ({ metadata }) => metadata.labels?.["istio.io/dataplane-mode"] ?? "no"),
      ];
    case "AuthorizationPolicy":
      return [
        column("ACTION", (object) =>
          object.kind === kind ? (object.spec?.action ?? "ALLOW") : "",
        ),
        column("APPLIED", applied),
      ];
    case "PeerAuthentication":
      return [
        column("MODE", (object) =>
          object.kind === kind ? (object.spec.mtls?.mode ?? "UNSET") : "",
        ),
        column("APPLIED", applied),
      ];
    case "Node":
    case "ServiceAccount":
    case "EndpointSlice":
    case "ServiceEntry":
    case "WorkloadEntry":
    case "ConfigMap":
    case "GatewayClass":
      return [];
    case "Gateway":
      return [
        column("CLASS", (object) => (object.kind === kind ? object.spec.gatewayClassName : "")),
        column("ADDRESS", (object) =>
          object.kind === kind ? object.status?.addresses?.map(({ value }) => value).join(",") : "",
        ),
      ];
  }
}

/** Whether the proxies that enforce a rule have it; else why not. */
function applied(object: Resource): string {
  if (object.kind !== "AuthorizationPolicy" && object.kind !== "PeerAuthentication") return "";
  const found = object.status?.conditions?.find(({ type }) => type === "ambit.io/Applied");
  return found === undefined ? "unknown" : found.status === "True" ? "yes" : (found.reason ?? "no");
}

function column(title: string, text: Column<Resource>["text"]): Column<Resource> {
  return { title, text };
}

function readiness(deployment: Resource & { kind: "Deployment" }): string {
  const { status } = deployment as { status?: { readyReplicas?: number } };
  return `${status?.readyReplicas ?? 0}/${deployment.spec.replicas}`;
}
