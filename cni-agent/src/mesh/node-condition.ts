// What the node's object says of redirection: the way its pods are captured, how kubelet's probes are known,
// and why not the better way.
// `ambit local status` shows it, and so does whatever shows nodes' conditions.

import type { ResourceWriter } from "@ambit/common/resources/source.ts";
import type { Choice, ProbeChoice } from "../rules/redirection-choice.ts";

export const REDIRECTION_CONDITION = "ambit.io/Redirection";

export const PROBES_CONDITION = "ambit.io/Probes";

/** A type, not an interface: the resource's own conditions have an index signature. */
export type NodeCondition = {
  readonly type: string;
  readonly status: "True" | "False";
  readonly reason: string;
  readonly message: string;
};

/** A node without an object is no error. */
export async function writeNodeCondition(
  writer: ResourceWriter,
  nodeName: string,
  now: NodeCondition,
): Promise<void> {
  const key = { kind: "Node", namespace: "", name: nodeName } as const;
  await writer.patch(key, (resource) => {
    if (resource.kind !== "Node") return resource;
    const { conditions = [] } = resource.status ?? {};
    const before = conditions.find(({ type }) => type === now.type);
    if (before?.reason === now.reason && before?.message === now.message) return resource;
    const others = conditions.filter(({ type }) => type !== now.type);
    return { ...resource, status: { ...resource.status, conditions: [...others, now] } };
  });
}

/** Reason: Ebpf, Nftables or Iptables. Message: empty when that is what was asked for. */
export function redirectionCondition(choice: Choice): NodeCondition {
  const { backend } = choice;
  return {
    type: REDIRECTION_CONDITION,
    status: isUseless(choice) ? "False" : "True",
    reason: capitalized(backend),
    message: describeFallback(choice) ?? "",
  };
}

/** Reason: Sockets or Addresses. Message: why not sockets, where that could be. */
export function probesCondition({ by, fallback }: ProbeChoice): NodeCondition {
  const message =
    fallback === undefined ? "" : `not by sockets (${fallback.check}): ${fallback.message}`;
  return { type: PROBES_CONDITION, status: "True", reason: capitalized(by), message };
}

function capitalized(word: string): string {
  return word.slice(0, 1).toUpperCase() + word.slice(1);
}

/** eBPF was demanded, and whoever should take what it captures cannot. */
function isUseless({ backend, fallback }: Choice): boolean {
  return backend === "ebpf" && fallback !== undefined;
}

/** One clause for people; undefined when all is as it was asked for. */
export function describeFallback(choice: Choice): string | undefined {
  const { fallback } = choice;
  if (fallback === undefined) return undefined;
  const effect = isUseless(choice) ? "nothing can be captured by eBPF" : "not by eBPF";
  return `${effect} (${fallback.check}): ${fallback.message}`;
}
