// Mesh-wide configuration: the keys of Istio's ConfigMap `istio`. `mesh` is Istio's MeshConfig, of which we
// take what concerns L4; `ambit` is ours. What is missing stays as the environment has it.

import { z } from "zod";
import { labelName, labelSelector } from "@ambit/api/resources/meta.ts";
import { formatPath } from "@ambit/api/resources/parse.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { parseYamlValue } from "@ambit/common/process/yaml-value.ts";
import { type Labels } from "../translate/labels.ts";
import { selectorMatches } from "@ambit/common/resources/label-selector.ts";

const visibility = z.enum(["UNSPECIFIED", "NONE", "NAMESPACE", "PUBLIC"]).default("UNSPECIFIED");

const serviceEntryVisibility = z.looseObject({
  defaultVisibility: visibility,
  policies: z
    .array(
      z.looseObject({
        visibility,
        matchingRules: z
          .array(z.looseObject({ namespaceSelector: labelSelector.optional() }))
          .default([]),
      }),
    )
    .default([]),
});

/** Loose: the rest of Istio's fields are for parts that are not ours, or for L7. */
const mesh = z.looseObject({
  rootNamespace: labelName.optional(),
  trustDomain: z.string().min(1).optional(),
  trustDomainAliases: z.array(z.string()).optional(),
  discoverySelectors: z.array(labelSelector).optional(),
  serviceEntryVisibility: serviceEntryVisibility.optional(),
});

export const SAME_NODE_MODES = ["local", "hbone", "direct"] as const;

/** How two pods of one node reach each other. */
export type SameNode = (typeof SAME_NODE_MODES)[number];

const ambit = z.strictObject({ sameNode: z.enum(SAME_NODE_MODES).optional() });

export type ServiceEntryVisibility = z.infer<typeof serviceEntryVisibility>;

export interface MeshConfig extends z.infer<typeof ambit> {
  readonly rootNamespace?: string | undefined;
  readonly trustDomain?: string | undefined;
  readonly trustDomainAliases?: readonly string[] | undefined;
  /** Namespaces that the mesh is made of; none: all. */
  readonly discoverySelectors?: readonly z.infer<typeof labelSelector>[] | undefined;
  readonly serviceEntryVisibility?: ServiceEntryVisibility | undefined;
}

/** The keys of the ConfigMap, or the files of the folder it is mounted as. */
export type MeshConfigData = Readonly<Record<string, string>>;

/** Throws an Error that names the key, the field and what is wrong with it. */
export function parseMeshConfig(data: MeshConfigData): MeshConfig {
  const { rootNamespace, trustDomain, trustDomainAliases, discoverySelectors, ...rest } = read(
    data,
    "mesh",
    mesh,
  );
  return {
    rootNamespace,
    trustDomain,
    trustDomainAliases,
    discoverySelectors,
    serviceEntryVisibility: rest.serviceEntryVisibility,
    ...read(data, "ambit", ambit),
  };
}

function read<T extends z.ZodType>(data: MeshConfigData, key: string, schema: T): z.infer<T> {
  let value: unknown;
  try {
    value = parseYamlValue(data[key] ?? "") ?? {};
  } catch (error) {
    throw new Error(`key ${key}: ${errorMessage(error)}`, { cause: error });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const path = formatPath(
    (issue?.path ?? []).map((part) => (typeof part === "number" ? part : String(part))),
  );
  throw new Error(`key ${key}: ${path} ${issue?.message}`.replace(":  ", ": "));
}

export type Visibility = "NONE" | "NAMESPACE" | "PUBLIC";

/** How far ServiceEntries of a namespace are seen: the first policy of which every rule holds decides. */
export function visibilityIn(
  config: ServiceEntryVisibility | undefined,
  namespaceLabels: Labels,
): Visibility {
  if (config === undefined) return "PUBLIC";
  const policy = config.policies.find(({ matchingRules }) =>
    matchingRules.every(
      ({ namespaceSelector }) =>
        namespaceSelector !== undefined && selectorMatches(namespaceSelector, namespaceLabels),
    ),
  );
  const found = (policy ?? { visibility: config.defaultVisibility }).visibility;
  return found === "UNSPECIFIED" ? "PUBLIC" : found;
}
