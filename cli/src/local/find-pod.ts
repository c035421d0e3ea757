// Which pod a user means: its name, or, since generated names are no fun to type, the Deployment or the
// app it belongs to; with or without a namespace. Pure.

import { UserError } from "@ambit/common/process/errors.ts";
import type { PodEntry } from "./run-file.ts";

/** Finds `POD`, `POD.NAMESPACE` or `NAMESPACE/POD`. Throws a UserError that lists the choices. */
export function findPod(pods: readonly PodEntry[], text: string): PodEntry {
  const { name, namespace } = splitPodName(pods, text);
  const inScope = pods.filter((pod) => namespace === undefined || pod.namespace === namespace);
  const exact = inScope.filter((pod) => pod.name === name);
  const matches = exact.length > 0 ? exact : inScope.filter((pod) => belongsTo(pod, name));
  const [first] = matches;
  if (first === undefined) throw new UserError(`no pod "${text}" is running: ${choices(pods)}`);
  const namespaces = new Set(matches.map((pod) => pod.namespace));
  if (namespaces.size > 1) {
    const list = [...namespaces].map((each) => `${name}.${each}`).join(" or ");
    throw new UserError(`several namespaces have a pod "${name}": say ${list}`);
  }
  return first;
}

/** Pod names may contain dots: only a last part that is a namespace with pods is taken as one. */
function splitPodName(
  pods: readonly PodEntry[],
  text: string,
): { name: string; namespace: string | undefined } {
  const slash = text.indexOf("/");
  if (slash > 0) return { namespace: text.slice(0, slash), name: text.slice(slash + 1) };
  const dot = text.lastIndexOf(".");
  const namespace = text.slice(dot + 1);
  const known = dot > 0 && pods.some((pod) => pod.namespace === namespace);
  return known ? { name: text.slice(0, dot), namespace } : { name: text, namespace: undefined };
}

/** "reviews-v1-<hash>-<random>" belongs to "reviews-v1", and by its label to "reviews". */
function belongsTo(pod: PodEntry, name: string): boolean {
  return /-[0-9a-f]{10}-[a-z0-9]{5}$/.test(pod.name)
    ? pod.name.slice(0, -17) === name || pod.app === name
    : pod.app === name;
}

function choices(pods: readonly PodEntry[]): string {
  if (pods.length === 0) return "there are none";
  return `there are ${pods.map(({ namespace, name }) => `${name}.${namespace}`).join(", ")}`;
}
