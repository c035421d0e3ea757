// How pods reach others of their node, when that is configured: it travels to our ztunnels in an extension
// of the workload, which Istio's leave alone. Field of the Any: google.protobuf.StringValue.

import { create } from "@bufbuild/protobuf";
import { anyPack, type Any, StringValueSchema } from "@bufbuild/protobuf/wkt";
import type { Namespace, Pod } from "@ambit/api/resources/kinds.ts";
import { SAME_NODE_MODES, type SameNode } from "../mesh-config/mesh-config.ts";
import { labelsOf } from "./labels.ts";
import type { MeshSettings } from "./settings.ts";

/** The label, and the extension's name. */
export const SAME_NODE = "ambit.io/same-node";

interface Extended {
  readonly extensions?: { readonly name: string; readonly config: Any }[];
}

/** The pod's label beats its namespace's, that the mesh's; a word nobody knows is passed over. */
export function sameNodeOf(
  pod: Pod,
  namespace: Namespace | undefined,
  { sameNode }: MeshSettings,
): Extended {
  const mode =
    MODES.get(labelsOf(pod)[SAME_NODE] ?? "") ??
    MODES.get(namespace?.metadata.labels?.[SAME_NODE] ?? "") ??
    (sameNode && MODES.get(sameNode));
  return mode === undefined ? {} : { extensions: [{ name: SAME_NODE, config: mode }] };
}

const MODES = new Map<string, Any>(
  SAME_NODE_MODES.map((value: SameNode) => [
    value,
    anyPack(StringValueSchema, create(StringValueSchema, { value })),
  ]),
);
