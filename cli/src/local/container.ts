// How a container of a manifest becomes a program on this machine: its command line and environment,
// with Kubernetes' rules for field references and $(NAME). Pure.

import type { Pod } from "@ambit/api/resources/kinds.ts";

export type Container = Pod["spec"]["containers"][number];

/** The program to run; undefined when the manifest names none (there are no images here to have one). */
export function commandOf(container: Container, env: NodeJS.ProcessEnv): string[] | undefined {
  const argv = [...(container.command ?? []), ...(container.args ?? [])];
  return argv.length === 0 ? undefined : argv.map((word) => expand(word, env));
}

/** The container's variables on top of `base`. A later variable may refer to an earlier one. */
export function environmentOf(
  pod: Pod,
  container: Container,
  base: NodeJS.ProcessEnv,
): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...base, HOSTNAME: pod.metadata.name };
  for (const variable of container.env ?? []) {
    env[variable.name] = fieldValue(pod, variable) ?? expand(variable.value, env);
  }
  return env;
}

/** `$(NAME)` becomes the variable's value when there is one; `$$(NAME)` is the way to write it literally. */
function expand(text: string, env: NodeJS.ProcessEnv): string {
  return text.replace(/\$(\$?)\(([A-Za-z_][A-Za-z0-9_]*)\)/g, (whole, escaped: string, name) =>
    escaped === "$" ? whole.slice(1) : (env[String(name)] ?? whole),
  );
}

/** The value behind `valueFrom.fieldRef`, for the fields that pods commonly ask for. */
function fieldValue(pod: Pod, variable: object): string | undefined {
  const { valueFrom } = variable as { valueFrom?: { fieldRef?: { fieldPath?: string } } };
  const path = valueFrom?.fieldRef?.fieldPath;
  if (path === undefined) return undefined;
  const { metadata, spec, status } = pod;
  const fields: Readonly<Record<string, string | undefined>> = {
    "metadata.name": metadata.name,
    "metadata.namespace": metadata.namespace,
    "metadata.uid": metadata.uid,
    "spec.nodeName": spec.nodeName,
    "spec.serviceAccountName": spec.serviceAccountName ?? "default",
    "status.podIP": status?.podIP,
    "status.hostIP": status?.hostIP,
  };
  const key = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(path);
  if (key !== null) return metadata[key[1] as "labels" | "annotations"]?.[key[2]!] ?? "";
  return fields[path] ?? "";
}
