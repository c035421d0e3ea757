// What the node's object says of redirection: the way its pods are captured, and why not the better one.
// `ambit local status` shows it, and so does whatever shows nodes' conditions.

import type { ResourceWriter } from "@ambit/common/resources/source.ts";
import type { Choice } from "../rules/redirection-choice.ts";

export const REDIRECTION_CONDITION = "ambit.io/Redirection";

/** A node without an object is no error. */
export async function writeNodeCondition(
  writer: ResourceWriter,
  nodeName: string,
  choice: Choice,
): Promise<void> {
  const key = { kind: "Node", namespace: "", name: nodeName } as const;
  await writer.patch(key, (resource) => {
    if (resource.kind !== "Node") return resource;
    const { conditions = [] } = resource.status ?? {};
    const before = conditions.find(({ type }) => type === REDIRECTION_CONDITION);
    const now = conditionOf(choice);
    if (before?.reason === now.reason && before?.message === now.message) return resource;
    const others = conditions.filter(({ type }) => type !== REDIRECTION_CONDITION);
    return { ...resource, status: { ...resource.status, conditions: [...others, now] } };
  });
}

/** Reason: Ebpf, Nftables or Iptables. Message: empty when that is what was asked for. */
function conditionOf(choice: Choice) {
  const { backend } = choice;
  return {
    type: REDIRECTION_CONDITION,
    status: isUseless(choice) ? ("False" as const) : ("True" as const),
    reason: backend.slice(0, 1).toUpperCase() + backend.slice(1),
    message: describeFallback(choice) ?? "",
  };
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
