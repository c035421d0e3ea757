// Where resources come from: one interface for the manifest folder and, on Kubernetes, the API server.

import type { Resource, ResourceKind } from "@ambit/api/resources/kinds.ts";

/** Names a resource within the mesh; `namespace` is empty for kinds without one. */
export interface ResourceKey {
  readonly kind: ResourceKind;
  readonly namespace: string;
  readonly name: string;
}

/** Something a user must mend. The last good version of what it concerns stays in force. */
export interface SourceProblem {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** "spec.ports[0].port", or empty when the file as a whole is meant. */
  readonly field: string;
  readonly message: string;
}

export type ResourceEvent =
  | { readonly type: "upsert"; readonly resource: Resource }
  | { readonly type: "delete"; readonly key: ResourceKey };

export interface ResourceHandler {
  onEvents(events: readonly ResourceEvent[]): void;
  /** All problems there are now; called whenever the list changes. */
  onProblems(problems: readonly SourceProblem[]): void;
}

export interface ResourceSource {
  /** Resolves when the handler has seen everything that was there at the start. */
  start(handler: ResourceHandler): Promise<void>;
  close(): void;
}

/** Writes parts of objects back: annotations and status. */
export interface ResourceWriter {
  /**
   * Applies `change` to the current object; false when it does not exist (any more). Nothing is written
   * when `change` returns the object as it was given.
   */
  patch(key: ResourceKey, change: (resource: Resource) => Resource): Promise<boolean>;
}

export function keyOf(resource: Resource): ResourceKey {
  const { name, namespace } = resource.metadata;
  return { kind: resource.kind, namespace: namespace ?? "", name };
}

export function keyText({ kind, namespace, name }: ResourceKey): string {
  return `${kind}/${namespace}/${name}`;
}

export function formatProblem({ file, line, field, message }: SourceProblem): string {
  return `${file}:${line}: ${field}${field && " "}${message}`;
}
