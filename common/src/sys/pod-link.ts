// Where on the node a pod's packets arrive: the other end of its only link. Found only where nothing is at
// them that would miss packets that take a shortcut (bpf/include/shortcut.h).

import { AttachType, attachedPrograms } from "./bpf-link.ts";
import { Links } from "./netlink-link.ts";
import { inNetns, type NetnsHandle, ownNetns } from "./netns.ts";

/** What is in the way, as one word for metrics. */
export type LinkProblem = "links" | "veth" | "node" | "queueing" | "filters" | "xdp" | "programs";

export type PodLink = { readonly index: number } | { readonly problem: LinkProblem };

/** `nodeNetns`: undefined for this thread's own. Throws SystemError. */
export function findPodLink(pod: NetnsHandle, nodeNetns: NetnsHandle | undefined): PodLink {
  const node = nodeNetns ?? ownNetns();
  using inPod = new Links(pod.fd);
  using onNode = new Links(node.fd);

  const [link, ...others] = inPod.all().filter(({ isLoopback }) => !isLoopback);
  if (link === undefined || others.length > 0) return { problem: "links" };
  if (link.kind !== "veth" || link.peer === undefined) return { problem: "veth" };
  const nodeId = inPod.netnsId(node.fd);
  if (nodeId === undefined || link.peerNetns !== nodeId) return { problem: "node" };
  const end = onNode.get(link.peer);
  if (end === undefined) return { problem: "node" };
  if (end.queueing !== "noqueue") return { problem: "queueing" };
  if (end.hasXdp || link.hasXdp) return { problem: "xdp" };
  if (onNode.hasFilters(end.index)) return { problem: "filters" };
  return { index: end.index };
}

/** Whether programs are at an interface of the node, `own` of them aside, which are ours. */
export function hasPrograms(
  index: number,
  nodeNetns: NetnsHandle | undefined,
  own: number,
): boolean {
  return inNetns(nodeNetns?.fd, () => {
    const incoming = attachedPrograms(index, AttachType.TCX_INGRESS);
    return incoming > own || attachedPrograms(index, AttachType.TCX_EGRESS) > 0;
  });
}
