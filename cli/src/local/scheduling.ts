// What the runtime decides about pods: which ones Deployments want, and on which node each one runs.
// Pure; the caller writes the result into the store.

import { createHash } from "node:crypto";
import type { Deployment, Pod } from "@ambit/api/resources/kinds.ts";
import { isReady, isTerminal } from "./pod-facts.ts";

const HASH_LABEL = "pod-template-hash";
/** Kubernetes' alphabet for generated names: no vowels, so no words. */
const NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH = 5;

export interface PodPlan {
  readonly create: readonly Pod[];
  readonly remove: readonly Pod[];
}

/**
 * The pods to create and remove so that every Deployment has its replicas. A changed template is
 * rolled out by starting the new pods first; the old ones go when as many new ones are ready.
 */
export function planPods(
  deployments: readonly Deployment[],
  pods: readonly Pod[],
  random: () => number,
): PodPlan {
  const create: Pod[] = [];
  const remove: Pod[] = [];
  const owned = Map.groupBy(pods, ownerOf);
  const wanted = new Set<string>();
  for (const deployment of deployments) {
    const owner = deploymentKey(deployment);
    wanted.add(owner);
    planDeployment(deployment, owned.get(owner) ?? [], random, { create, remove });
  }
  for (const [owner, orphans] of owned) {
    if (owner !== undefined && !wanted.has(owner)) remove.push(...orphans);
  }
  return { create, remove };
}

function planDeployment(
  deployment: Deployment,
  own: readonly Pod[],
  random: () => number,
  plan: { create: Pod[]; remove: Pod[] },
): void {
  const hash = templateHash(deployment);
  const { replicas } = deployment.spec;
  const dead = own.filter(isTerminal);
  const live = own.filter((pod) => !isTerminal(pod));
  const current = live.filter((pod) => pod.metadata.labels?.[HASH_LABEL] === hash);
  const outdated = live.filter((pod) => !current.includes(pod));
  for (let missing = replicas - current.length; missing > 0; missing--) {
    plan.create.push(makePod(deployment, hash, random));
  }
  plan.remove.push(...dead, ...byReadiness(current).slice(replicas));
  if (current.filter(isReady).length >= replicas) plan.remove.push(...outdated);
}

/** Ready pods first, so that scaling down takes those that serve nobody. */
function byReadiness(pods: readonly Pod[]): Pod[] {
  return [...pods].sort((a, b) => Number(isReady(b)) - Number(isReady(a)));
}

/** A pod of the Deployment, owned through its ReplicaSet as Kubernetes has it; the set itself is not an object here. */
function makePod(deployment: Deployment, hash: string, random: () => number): Pod {
  const { name, namespace } = deployment.metadata;
  const { metadata = {}, spec } = deployment.spec.template;
  const replicaSet = `${name}-${hash}`;
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: `${replicaSet}-${randomSuffix(random)}`,
      ...(namespace !== undefined && { namespace }),
      labels: { ...metadata.labels, [HASH_LABEL]: hash },
      ...(metadata.annotations && { annotations: metadata.annotations }),
      ownerReferences: [
        { apiVersion: "apps/v1", kind: "ReplicaSet", name: replicaSet, controller: true },
      ],
    },
    spec: structuredClone(spec),
  };
}

export function templateHash(deployment: Deployment): string {
  const text = JSON.stringify(deployment.spec.template);
  return createHash("sha256").update(text).digest("hex").slice(0, 10);
}

function randomSuffix(random: () => number): string {
  return Array.from(
    { length: SUFFIX_LENGTH },
    () => NAME_ALPHABET[Math.floor(random() * NAME_ALPHABET.length)],
  ).join("");
}

function deploymentKey({ metadata }: Deployment): string {
  return `${metadata.namespace}/${metadata.name}`;
}

/** "namespace/deployment" of a pod made by one; undefined for pods of other origin. */
export function ownerOf(pod: Pod): string | undefined {
  const owner = pod.metadata.ownerReferences?.find(({ kind }) => kind === "ReplicaSet");
  const hash = pod.metadata.labels?.[HASH_LABEL];
  if (owner === undefined || hash === undefined) return undefined;
  return `${pod.metadata.namespace}/${owner.name.slice(0, -hash.length - 1)}`;
}

/**
 * The node for a pod that names none: the one with the fewest pods of the same owner, then the fewest
 * pods at all, then the first. Spreads replicas, and is round robin for single pods.
 */
export function chooseNode(pod: Pod, nodes: readonly string[], pods: readonly Pod[]): string {
  const owner = ownerOf(pod);
  const load = (node: string): [number, number] => {
    const here = pods.filter((other) => other.spec.nodeName === node && !isTerminal(other));
    const siblings = owner === undefined ? [] : here.filter((other) => ownerOf(other) === owner);
    return [siblings.length, here.filter((other) => other.spec.hostNetwork !== true).length];
  };
  const ranked = nodes.map((node) => ({ node, load: load(node) }));
  ranked.sort((a, b) => a.load[0] - b.load[0] || a.load[1] - b.load[1]);
  return ranked[0]!.node;
}
