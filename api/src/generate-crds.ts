// Writes CRDs (crds/*.yaml) and JSON Schemas (schemas/*.json) from the resource schemas, into the folder
// given as argument. Run by `npm run generate`.

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { KINDS, type ResourceKind } from "./resources/kinds.ts";

type Json = Readonly<Record<string, unknown>>;

/** JSON is YAML; one field a line keeps differences readable. */
function crdText(kind: ResourceKind, schema: Json): string {
  const properties = schema["properties"] as Record<string, Json>;
  const apiVersions = (properties["apiVersion"] ?? {})["enum"] as string[];
  const versions = apiVersions.map((version) => version.split("/")[1]!);
  const group = apiVersions[0]!.split("/")[0]!;
  const { plural, short } = KINDS[kind];
  const { spec, status } = properties;
  const openAPIV3Schema = {
    type: "object",
    properties: {
      spec: structural(spec ?? {}),
      status: {
        ...(structural(status ?? { type: "object" }) as Json),
        "x-kubernetes-preserve-unknown-fields": true,
      },
    },
  };
  const crd = {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      names: {
        kind,
        listKind: `${kind}List`,
        plural,
        singular: kind.toLowerCase(),
        shortNames: [short],
      },
      scope: "Namespaced",
      versions: versions.map((name, i) => ({
        name,
        served: true,
        storage: i === 0,
        subresources: { status: {} },
        schema: { openAPIV3Schema },
      })),
    },
  };
  return `# Generated from api/src/resources: do not edit.\n${JSON.stringify(crd, undefined, 2)}\n`;
}

/** Keywords that a structural schema must not have; Kubernetes prunes unknown fields by itself. */
const DROPPED = new Set(["$schema", "additionalProperties", "propertyNames", "default"]);

/** JSON Schema to Kubernetes' structural subset: `const` becomes `enum`, closed objects plain ones. */
function structural(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(structural);
  if (typeof schema !== "object" || schema === null) return schema;
  const out: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(schema)) {
    if (DROPPED.has(key) && !isMapSchema(key, value)) continue;
    if (key === "const") out["enum"] = [value];
    else if (key === "anyOf" && isIntOrString(value)) out["x-kubernetes-int-or-string"] = true;
    else if (key === "required" || key === "enum") out[key] = value;
    else out[key] = structural(value);
  }
  return out;
}

/** A map's value schema is kept; "nothing else allowed" is not Kubernetes' way. */
function isMapSchema(key: string, value: unknown): boolean {
  return (
    key === "additionalProperties" &&
    typeof value === "object" &&
    value !== null &&
    Object.keys(value).length > 0
  );
}

function isIntOrString(options: unknown): boolean {
  const types = Array.isArray(options) ? options.map((option: Json) => option["type"]) : [];
  return types.length === 2 && types.includes("integer") && types.includes("string");
}

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error("usage: generate-crds.ts FOLDER");

for (const output of ["crds", "schemas"]) {
  rmSync(join(folder, output), { recursive: true, force: true });
  mkdirSync(join(folder, output), { recursive: true });
}
for (const kind of Object.keys(KINDS) as ResourceKind[]) {
  const schema = z.toJSONSchema(KINDS[kind].schema, {
    io: "input",
    target: "draft-2020-12",
  }) as Json;
  writeFileSync(
    join(folder, "schemas", `${kind.toLowerCase()}.json`),
    `${JSON.stringify(schema, undefined, 2)}\n`,
  );
  if (KINDS[kind].custom)
    writeFileSync(join(folder, "crds", `${KINDS[kind].plural}.yaml`), crdText(kind, schema));
}
