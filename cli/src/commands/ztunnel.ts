// `ambit ztunnel …`: what a node's ztunnel knows, in istioctl's columns (ztunnel-config).

import { UserError } from "@ambit/common/process/errors.ts";
import type { Home } from "../local/home.ts";
import { requireRunning } from "../local/run-file.ts";
import { type Column, type OutputFormat, printJson, printRows } from "../output/table.ts";
import { askZtunnel, type Node, selectNodes } from "./node-admin.ts";
import {
  certificateRows,
  type ConfigDump,
  connectionRows,
  podRows,
  policyRows,
  serviceRows,
  workloadRows,
} from "./ztunnel-rows.ts";

export type ZtunnelView =
  | "workloads"
  | "services"
  | "policies"
  | "certificates"
  | "connections"
  | "pods";

interface ViewOptions {
  readonly node: string | undefined;
  readonly output: OutputFormat;
}

interface NodeDump {
  readonly node: string;
  readonly dump: ConfigDump;
}

/** What differs from node to node is shown for all of them; what all share, as the first one has it. */
export async function showZtunnel(
  home: Home,
  view: ZtunnelView,
  { node, output }: ViewOptions,
): Promise<void> {
  const nodes = selectNodes(requireRunning(home), node);
  const perNode = view === "certificates" || view === "connections" || view === "pods";
  const dumps = await Promise.all((perNode ? nodes : nodes.slice(0, 1)).map(fetchDump));
  const options = { format: output, empty: `no ${view}` };
  const [first] = dumps;
  if (first === undefined) throw new UserError("the mesh has no node");
  switch (view) {
    case "workloads":
      return printRows(WORKLOADS, workloadRows(first.dump), {
        ...options,
        json: first.dump.workloads,
      });
    case "services":
      return printRows(SERVICES, serviceRows(first.dump), {
        ...options,
        json: first.dump.services,
      });
    case "policies":
      return printRows(POLICIES, policyRows(first.dump), { ...options, json: first.dump.policies });
    case "certificates": {
      const json = dumps.flatMap((entry) =>
        entry.dump.certificates.map((certificate) => ({ node: entry.node, ...certificate })),
      );
      const rows = dumps.flatMap((entry) => certificateRows(entry.node, entry.dump, Date.now()));
      return printRows(CERTIFICATES, rows, { ...options, json });
    }
    case "connections": {
      const rows = dumps.flatMap((entry) => connectionRows(entry.node, entry.dump));
      return printRows(CONNECTIONS, rows, { ...options, json: rows });
    }
    case "pods": {
      const rows = dumps.flatMap((entry) => podRows(entry.node, entry.dump));
      return printRows(PODS, rows, { ...options, json: rows });
    }
  }
}

async function fetchDump(node: Node): Promise<NodeDump> {
  const { status, body } = await askZtunnel(node, "/config_dump");
  if (status !== 200)
    throw new UserError(`ztunnel on ${node.name} answered ${status}: ${body.trim()}`);
  return { node: node.name, dump: JSON.parse(body) as ConfigDump };
}

/** Shows or changes the log level of one or all nodes. */
export async function logLevel(
  home: Home,
  level: string | undefined,
  { node, output, reset }: ViewOptions & { readonly reset?: boolean | undefined },
): Promise<void> {
  const query = new URLSearchParams();
  if (reset === true) query.set("reset", "");
  if (level !== undefined) query.set("level", level);
  const answers = await Promise.all(
    selectNodes(requireRunning(home), node).map(async (each) => {
      const { status, body } = await askZtunnel(each, `/logging?${query.toString()}`, "POST");
      if (status !== 200) throw new UserError(body.trim(), 2);
      return { node: each.name, level: body.trim().replace(/^current log level is /, "") };
    }),
  );
  if (output === "json") return printJson(answers);
  for (const answer of answers) console.log(`${answer.node}: ${answer.level}`);
}

type Row<F extends (...args: never[]) => readonly unknown[]> = ReturnType<F>[number];

const WORKLOADS: readonly Column<Row<typeof workloadRows>>[] = [
  { title: "NAMESPACE", text: ({ namespace }) => namespace },
  { title: "POD NAME", text: ({ name }) => name },
  { title: "ADDRESS", text: ({ address }) => address },
  { title: "NODE", text: ({ node }) => node },
  { title: "WAYPOINT", text: ({ waypoint }) => waypoint },
  { title: "PROTOCOL", text: ({ protocol }) => protocol },
];

const SERVICES: readonly Column<Row<typeof serviceRows>>[] = [
  { title: "NAMESPACE", text: ({ namespace }) => namespace },
  { title: "SERVICE NAME", text: ({ name }) => name },
  { title: "SERVICE VIP", text: ({ vip }) => vip },
  { title: "WAYPOINT", text: ({ waypoint }) => waypoint },
  { title: "ENDPOINTS", text: ({ endpoints }) => endpoints },
];

const POLICIES: readonly Column<Row<typeof policyRows>>[] = [
  { title: "NAMESPACE", text: ({ namespace }) => namespace },
  { title: "POLICY NAME", text: ({ name }) => name },
  { title: "ACTION", text: ({ action }) => action },
  { title: "SCOPE", text: ({ scope }) => scope },
];

const CERTIFICATES: readonly Column<Row<typeof certificateRows>>[] = [
  { title: "NODE", text: ({ node }) => node },
  { title: "CERTIFICATE NAME", text: ({ identity }) => identity },
  { title: "TYPE", text: ({ type }) => type },
  { title: "STATUS", text: ({ status }) => status },
  { title: "VALID CERT", text: ({ valid }) => valid },
  { title: "SERIAL NUMBER", text: ({ serialNumber }) => serialNumber },
  { title: "NOT AFTER", text: ({ notAfter }) => notAfter },
  { title: "NOT BEFORE", text: ({ notBefore }) => notBefore },
];

const CONNECTIONS: readonly Column<Row<typeof connectionRows>>[] = [
  { title: "NODE", text: ({ node }) => node },
  { title: "WORKLOAD", text: ({ workload }) => workload },
  { title: "DIRECTION", text: ({ direction }) => direction },
  { title: "LOCAL", text: ({ local }) => local },
  { title: "REMOTE", text: ({ remote }) => remote },
  { title: "REMOTE TARGET", text: ({ remoteTarget }) => remoteTarget },
  { title: "PROTOCOL", text: ({ protocol }) => protocol },
  { title: "SENT", text: ({ sent }) => sent },
  { title: "RECEIVED", text: ({ received }) => received },
];

const PODS: readonly Column<Row<typeof podRows>>[] = [
  { title: "NODE", text: ({ node }) => node },
  { title: "POD", text: ({ pod }) => pod },
  { title: "INBOUND", text: ({ inbound }) => inbound },
  { title: "OUTBOUND", text: ({ outbound }) => outbound },
  { title: "OPENED", text: ({ opened }) => opened },
  { title: "REFUSED", text: ({ refused }) => refused },
  { title: "SENT", text: ({ sent }) => sent },
  { title: "RECEIVED", text: ({ received }) => received },
  { title: "CPU", text: ({ cpu }) => cpu },
];
