// Any text as the mesh configuration: a configuration, or one sentence about what is wrong.

import { assert } from "@ambit/common/process/assert.ts";
import { parseMeshConfig, SAME_NODE_MODES, visibilityIn } from "./mesh-config.ts";

export const name = "mesh-config";

export function corpus(): Uint8Array[] {
  return [
    "trustDomain: a.test\nrootNamespace: root\ndiscoverySelectors: [{matchLabels: {a: b}}]\n",
    "serviceEntryVisibility: {defaultVisibility: NAMESPACE, policies: [{visibility: NONE, matchingRules: [{namespaceSelector: {matchExpressions: [{key: a, operator: Exists}]}}]}]}\n",
    "sameNode: hbone\n",
    "a: &x [1, *x]\n",
  ].map((text) => Buffer.from(text));
}

export function fuzz(data: Uint8Array): void {
  const text = Buffer.from(data).toString();
  for (const key of ["mesh", "ambit"]) {
    const found = read(key, text);
    if (typeof found === "string") {
      assert(found.startsWith(`key ${key}: `), "a mistake names its key");
      continue;
    }
    const { sameNode, serviceEntryVisibility } = found;
    assert(sameNode === undefined || SAME_NODE_MODES.includes(sameNode), "a mode is a known one");
    assert(
      visibilityIn(serviceEntryVisibility, { a: "b" }).length > 0,
      "everything is seen somehow",
    );
  }
}

function read(key: string, text: string): ReturnType<typeof parseMeshConfig> | string {
  try {
    return parseMeshConfig({ [key]: text });
  } catch (error) {
    if (error instanceof Error) return error.message;
    throw error;
  }
}
