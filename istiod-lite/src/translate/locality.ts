// Where a workload is: from its node's labels, or as a WorkloadEntry writes it.

import type { Node } from "@ambit/api/resources/kinds.ts";

interface Placed {
  readonly locality?: { readonly region: string; readonly zone: string; readonly subzone: string };
}

export function localityOfNode(node: Node | undefined): Placed {
  const labels = node?.metadata.labels ?? {};
  return placed(
    labels["topology.kubernetes.io/region"] ?? "",
    labels["topology.kubernetes.io/zone"] ?? "",
    labels["topology.istio.io/subzone"] ?? "",
  );
}

/** "region/zone/subzone"; what is behind a third slash is not looked at. */
export function localityOfText(text = ""): Placed {
  const [region = "", zone = "", subzone = ""] = text.split("/");
  return placed(region, zone, subzone);
}

function placed(region: string, zone: string, subzone: string): Placed {
  return region || zone || subzone ? { locality: { region, zone, subzone } } : {};
}
