// `ambit local status`: what runs where, with the names one needs for ip, nft and tcpdump.

import { FolderStore } from "@ambit/common/resources/folder-store.ts";
import type { Home } from "../local/home.ts";
import {
  isEnrolled,
  isReady,
  podIps,
  PROBES_CONDITION,
  REDIRECTION_CONDITION,
} from "../local/pod-facts.ts";
import { type PodEntry, requireRunning, type RunFile } from "../local/run-file.ts";
import { serviceIps } from "../local/services.ts";
import { type OutputFormat, printJson, renderTable } from "../output/table.ts";

export function showStatus(home: Home, format: OutputFormat): void {
  const run = requireRunning(home);
  const store = new FolderStore(home.manifests);
  const objects = new Map(
    store.list("Pod").map((pod) => [`${pod.metadata.namespace}/${pod.metadata.name}`, pod]),
  );
  const pods = run.pods.map((entry) => describePod(entry, objects));
  const services = store.list("Service").map((service) => ({
    namespace: service.metadata.namespace,
    name: service.metadata.name,
    clusterIPs: serviceIps(service),
    ports: (service.spec.ports ?? []).map(({ port, protocol }) => `${port}/${protocol}`),
  }));
  const nodes = run.nodes.map((node) => describeNode(node, store));
  if (format === "json") return printJson({ home: home.root, ...run, nodes, pods, services });
  console.log(
    `mesh ${run.state}, supervisor ${run.pid}, redirection ${run.redirection}, ${home.root}`,
  );
  const tables = [
    nodeTable(nodes),
    renderTable(
      [
        { title: "PROGRAM", text: ({ name }) => name },
        { title: "NODE", text: ({ node }) => node },
        { title: "STATE", text: ({ state }) => state },
        { title: "PID", text: ({ pid }) => pid },
        { title: "RESTARTS", text: ({ restarts }) => restarts },
        { title: "LOG", text: ({ log }) => log },
      ],
      run.components,
    ),
    renderTable(
      [
        { title: "NAMESPACE", text: ({ namespace }) => namespace },
        { title: "POD", text: ({ name }) => name },
        { title: "NODE", text: ({ node }) => node },
        { title: "READY", text: ({ ready }) => ready },
        { title: "MESH", text: ({ mesh }) => mesh },
        { title: "STATUS", text: ({ phase, reason }) => reason ?? phase },
        { title: "RESTARTS", text: ({ restarts }) => restarts },
        { title: "ADDRESS", text: ({ ips }) => ips[0] },
        { title: "LINK", text: ({ link }) => link },
      ],
      pods,
    ),
    renderTable(
      [
        { title: "NAMESPACE", text: ({ namespace }) => namespace },
        { title: "SERVICE", text: ({ name }) => name },
        { title: "ADDRESS", text: ({ clusterIPs }) => clusterIPs.join(",") },
        { title: "PORTS", text: ({ ports }) => ports.join(",") },
      ],
      services,
    ),
  ];
  console.log(`\n${tables.join("\n\n")}`);
}

function describeNode(node: RunFile["nodes"][number], store: FolderStore) {
  return {
    ...node,
    redirection: wayOf(store, node.name, REDIRECTION_CONDITION),
    probes: wayOf(store, node.name, PROBES_CONDITION),
  };
}

function nodeTable(nodes: readonly ReturnType<typeof describeNode>[]): string {
  return renderTable(
    [
      { title: "NODE", text: ({ name }) => name },
      { title: "NETNS", text: ({ netns }) => netns },
      { title: "ADDRESSES", text: ({ ips }) => ips.join(",") },
      { title: "PODS", text: ({ podCidrs }) => podCidrs.join(",") },
      { title: "REDIRECTION", text: ({ redirection }) => redirection.backend },
      { title: "PROBES", text: ({ probes }) => probes.backend },
      { title: "WHY", text: ({ redirection, probes }) => redirection.reason ?? probes.reason },
    ],
    nodes,
  );
}

/** What the node agent says of how it captures, or knows probes, and why not in the better way. */
function wayOf(
  store: FolderStore,
  name: string,
  subject: string,
): { backend: string; reason?: string } {
  const node = store.get({ kind: "Node", namespace: "", name });
  const conditions = node?.kind === "Node" ? (node.status?.conditions ?? []) : [];
  const condition = conditions.find(({ type }) => type === subject);
  if (condition === undefined) return { backend: "unknown" };
  const { reason = "unknown", message = "" } = condition;
  return { backend: reason.toLowerCase(), ...(message !== "" && { reason: message }) };
}

type PodObject = ReturnType<FolderStore["list"]>[number] & { kind: "Pod" };

function describePod(entry: PodEntry, objects: ReadonlyMap<string, PodObject>) {
  const pod = objects.get(`${entry.namespace}/${entry.name}`);
  if (pod === undefined) {
    const gone = { phase: "Terminating", ready: false, mesh: "no", restarts: 0 };
    return { ...entry, ...gone, serviceAccount: undefined, reason: undefined };
  }
  const condition = pod.status?.conditions?.find(({ type }) => type === "Ready");
  const { containerStatuses = [] } = (pod.status ?? {}) as {
    containerStatuses?: { restartCount?: number }[];
  };
  const reason = condition?.reason;
  return {
    ...entry,
    ips: podIps(pod).length > 0 ? podIps(pod) : entry.ips,
    phase: pod.status?.phase ?? "Pending",
    ready: isReady(pod),
    mesh: isEnrolled(pod) ? "enrolled" : "no",
    serviceAccount: pod.spec.serviceAccountName ?? "default",
    restarts: containerStatuses.reduce((sum, { restartCount = 0 }) => sum + restartCount, 0),
    reason,
  };
}
