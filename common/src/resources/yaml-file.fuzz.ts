// Any text as a manifest: resources, or problems with a line in the file.

import { assert } from "../process/assert.ts";
import { parseManifest } from "./yaml-file.ts";

export const name = "manifests";

export function corpus(): Uint8Array[] {
  return [
    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n---\nkind: Pod\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {rules: [{from: [{source: {principals: ['*']}}]}]}\n",
    "a: &x [1, *x]\n",
  ].map((text) => Buffer.from(text));
}

export function fuzz(data: Uint8Array): void {
  const text = Buffer.from(data).toString();
  const { resources, problems } = parseManifest(text, "f");
  for (const { line, message } of problems)
    assert(line >= 1 && message.length > 0, "a problem has a place and a text");
  for (const { metadata } of resources) assert(metadata.name.length > 0, "a resource has a name");
}
