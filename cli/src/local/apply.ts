// Applying manifests as kubectl does: what the last apply set and this one does not is removed, what
// others wrote (status, addresses, annotations, labels set by hand) stays.

import { type Resource, KINDS } from "@ambit/api/resources/kinds.ts";
import { UserError } from "@ambit/common/process/errors.ts";
import type { FolderStore } from "@ambit/common/resources/folder-store.ts";
import { keyOf, type ResourceKey } from "@ambit/common/resources/source.ts";
import { isDeepStrictEqual } from "node:util";

const LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration";

export interface Applied {
  readonly key: ResourceKey;
  readonly outcome: "created" | "configured" | "unchanged";
}

/** Writes all of them, namespaces first. Throws a UserError, before writing, when a namespace is missing. */
export async function applyResources(
  store: FolderStore,
  resources: readonly Resource[],
): Promise<Applied[]> {
  checkNamespaces(store, resources);
  const ordered = [...resources].sort((a, b) => order(a) - order(b));
  const applied: Applied[] = [];
  for (const resource of ordered) {
    applied.push({ key: keyOf(resource), outcome: await applyOne(store, resource) });
  }
  return applied;
}

function order({ kind }: Resource): number {
  return KINDS[kind].namespaced ? 1 : 0;
}

function checkNamespaces(store: FolderStore, resources: readonly Resource[]): void {
  const known = new Set(
    [...store.list("Namespace"), ...resources]
      .filter(({ kind }) => kind === "Namespace")
      .map(({ metadata }) => metadata.name),
  );
  for (const { kind, metadata } of resources) {
    if (metadata.namespace === undefined || known.has(metadata.namespace)) continue;
    throw new UserError(
      `${kind} ${metadata.name}: namespace "${metadata.namespace}" does not exist: apply a Namespace of that name too`,
    );
  }
}

async function applyOne(store: FolderStore, resource: Resource): Promise<Applied["outcome"]> {
  const key = keyOf(resource);
  const wanted = withoutManaged(resource);
  const annotated = annotate(wanted);
  const before = store.get(key);
  if (before === undefined) {
    await store.put(annotated);
    return "created";
  }
  const merge = (live: Resource): Resource => {
    const last = parseLast(live.metadata.annotations?.[LAST_APPLIED]);
    return mergeObjects(live, last, annotated) as Resource;
  };
  if (isDeepStrictEqual(merge(before), before)) return "unchanged";
  await store.patch(key, merge);
  return "configured";
}

/** A manifest that was read back from a cluster still carries what the cluster wrote into it. */
function withoutManaged(resource: Resource): Resource {
  const { status: _status, ...rest } = resource;
  const {
    uid: _uid,
    resourceVersion: _version,
    creationTimestamp: _created,
    ...metadata
  } = rest.metadata;
  return { ...rest, metadata };
}

function annotate(resource: Resource): Resource {
  const { [LAST_APPLIED]: _last, ...annotations } = resource.metadata.annotations ?? {};
  const plain = { ...resource, metadata: { ...resource.metadata, annotations } };
  const text = JSON.stringify(plain);
  return {
    ...plain,
    metadata: { ...plain.metadata, annotations: { ...annotations, [LAST_APPLIED]: text } },
  };
}

function parseLast(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * kubectl's three-way merge on plain objects: keys of `last` that `next` lacks go, keys of `next` are set,
 * keys that only `live` has stay. Arrays are replaced as a whole.
 */
export function mergeObjects(live: unknown, last: unknown, next: unknown): unknown {
  if (!isObject(next) || !isObject(live)) return next;
  const merged: Record<string, unknown> = { ...live };
  for (const key of Object.keys(isObject(last) ? last : {})) {
    if (!(key in next)) delete merged[key];
  }
  for (const [key, value] of Object.entries(next)) {
    merged[key] = mergeObjects(live[key], isObject(last) ? last[key] : undefined, value);
  }
  return merged;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
