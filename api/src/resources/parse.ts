// The door for Kubernetes objects: anything in, a typed resource or the list of what is wrong with it.

import type { z } from "zod";
import { isResourceKind, KINDS, type Resource } from "./kinds.ts";

export interface ResourceProblem {
  /** Where in the object: ["spec", "ports", 0, "port"]. */
  readonly path: readonly (string | number)[];
  readonly message: string;
}

export type ParsedResource =
  | { readonly ok: true; readonly resource: Resource }
  | { readonly ok: false; readonly problems: readonly ResourceProblem[] };

/** Validates an object by its kind. A namespaced one without namespace goes to `default`. */
export function parseResource(value: unknown): ParsedResource {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return problem([], "is not an object");
  }
  const { kind } = value as { kind?: unknown };
  if (typeof kind !== "string") return problem(["kind"], "is missing");
  if (!isResourceKind(kind)) {
    return problem(["kind"], `"${kind}" is not known: use one of ${Object.keys(KINDS).join(", ")}`);
  }
  const entry = KINDS[kind];
  const result = entry.schema.safeParse(value);
  if (!result.success) return { ok: false, problems: result.error.issues.flatMap(problemsOf) };
  const resource: Resource = result.data;
  if (entry.namespaced) resource.metadata.namespace ??= "default";
  else if (resource.metadata.namespace !== undefined) {
    return problem(["metadata", "namespace"], `must not be set: ${kind} is not namespaced`);
  }
  return { ok: true, resource };
}

function problem(path: readonly (string | number)[], message: string): ParsedResource {
  return { ok: false, problems: [{ path, message }] };
}

function problemsOf(issue: z.core.$ZodIssue): ResourceProblem[] {
  const path = issue.path.map((part) => (typeof part === "symbol" ? String(part) : part));
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ path: [...path, key], message: "is not a known field" }));
  }
  return [{ path, message: issue.message }];
}

/** "spec.ports[0].port" */
export function formatPath(path: readonly (string | number)[]): string {
  return path
    .map((part, i) => (typeof part === "number" ? `[${part}]` : i === 0 ? part : `.${part}`))
    .join("");
}
