// What the agent reads of a pod and of a namespace, parsed once. Nothing else goes inward.

import type { Namespace, Pod } from "@ambit/api/resources/kinds.ts";
import { type Ip, parseIp } from "@ambit/common/net/ip.ts";

export type StringMap = Readonly<Record<string, string>>;

export interface PodView {
  /** "namespace/name". */
  readonly key: string;
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly nodeName: string | undefined;
  readonly hostNetwork: boolean;
  /** Succeeded or Failed: nothing runs in it any more. */
  readonly terminal: boolean;
  /** Being deleted; its processes may still run. */
  readonly deleting: boolean;
  readonly ips: readonly Ip[];
  readonly labels: StringMap;
  readonly annotations: StringMap;
}

export interface NamespaceView {
  readonly name: string;
  readonly labels: StringMap;
}

const DEFAULT_NAMESPACE = "default";

export function podView({ metadata, spec, status }: Pod): PodView {
  const namespace = metadata.namespace ?? DEFAULT_NAMESPACE;
  const texts = [status?.podIP ?? "", ...(status?.podIPs ?? []).map(({ ip }) => ip)];
  const ips = texts.map(parseIp).filter((ip) => ip !== undefined);
  const key = podKey(namespace, metadata.name);
  return {
    key,
    uid: metadata.uid ?? key,
    name: metadata.name,
    namespace,
    serviceAccount: spec.serviceAccountName ?? "default",
    nodeName: spec.nodeName,
    hostNetwork: spec.hostNetwork ?? false,
    terminal: status?.phase === "Succeeded" || status?.phase === "Failed",
    deleting: metadata.deletionTimestamp !== undefined,
    ips: [...new Set(ips)],
    labels: metadata.labels ?? {},
    annotations: metadata.annotations ?? {},
  };
}

export function namespaceView({ metadata }: Namespace): NamespaceView {
  return { name: metadata.name, labels: metadata.labels ?? {} };
}

export function podKey(namespace: string, name: string): string {
  return `${namespace || DEFAULT_NAMESPACE}/${name}`;
}
