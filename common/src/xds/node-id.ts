// The node id of an xDS client: `<type>~<ip>~<name>.<namespace>~<domain>`, as Istio's proxies send it.

export interface NodeId {
  /** ztunnel, waypoint, sidecar, router. */
  readonly type: string;
  readonly ip: string;
  readonly name: string;
  readonly namespace: string;
}

/** undefined when it does not have the four parts, or the third no namespace. */
export function parseNodeId(id: string): NodeId | undefined {
  const [type, ip, pod, domain, ...rest] = id.split("~");
  const dot = pod?.lastIndexOf(".") ?? -1;
  if (!type || !ip || !pod || dot < 1 || domain === undefined || rest.length > 0) return undefined;
  const namespace = pod.slice(dot + 1);
  return namespace === "" ? undefined : { type, ip, name: pod.slice(0, dot), namespace };
}
