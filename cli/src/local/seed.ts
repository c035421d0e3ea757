// The objects that are there before the user's: the namespaces, nodes and accounts a new cluster has, and
// one pod per node that stands for its ztunnel. Pure.

import type { Resource } from "@ambit/api/resources/kinds.ts";
import { nodeAddress, podBlocks } from "./addresses.ts";
import { SYSTEM_NAMESPACE, ZTUNNEL_ACCOUNT, ztunnelPodName } from "./components.ts";
import type { NodePlace } from "./kubelet.ts";
import { STATIC_ANNOTATION } from "./pod-facts.ts";

export function seedResources(nodes: readonly NodePlace[]): Resource[] {
  const namespaces = ["default", "kube-system", SYSTEM_NAMESPACE].map((name): Resource => ({
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name, labels: { "kubernetes.io/metadata.name": name } },
  }));
  const account: Resource = {
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: { name: ZTUNNEL_ACCOUNT, namespace: SYSTEM_NAMESPACE },
  };
  return [...namespaces, account, ...nodes.flatMap((node) => [nodeObject(node), ztunnelPod(node)])];
}

function nodeObject({ name, number }: NodePlace): Resource {
  const { v4, v6 } = nodeAddress(number);
  const blocks = podBlocks(number);
  return {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name, labels: { "kubernetes.io/hostname": name } },
    spec: { podCIDR: blocks.v4, podCIDRs: [blocks.v4, blocks.v6] },
    status: {
      addresses: [v4, v6].map((address) => ({ type: "InternalIP", address })),
      conditions: [{ type: "Ready", status: "True" }],
    },
  };
}

function ztunnelPod(node: NodePlace): Resource {
  const { v4, v6 } = nodeAddress(node.number);
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: ztunnelPodName(node),
      namespace: SYSTEM_NAMESPACE,
      labels: { app: "ztunnel", "istio.io/dataplane-mode": "none" },
      annotations: { [STATIC_ANNOTATION]: "true" },
    },
    spec: {
      nodeName: node.name,
      hostNetwork: true,
      serviceAccountName: ZTUNNEL_ACCOUNT,
      containers: [{ name: "ztunnel" }],
    },
    status: {
      phase: "Running",
      podIP: v4,
      podIPs: [{ ip: v4 }, { ip: v6 }],
      hostIP: v4,
      conditions: [{ type: "Ready", status: "True" }],
    },
  };
}
