// `ambit explain`: asks the source node's ztunnel to decide about a connection without making it, and
// prints each step of that decision.

import { UserError } from "@ambit/common/process/errors.ts";
import { findPod } from "../local/find-pod.ts";
import type { Home } from "../local/home.ts";
import { type PodEntry, requireRunning } from "../local/run-file.ts";
import { type OutputFormat, printJson } from "../output/table.ts";
import { askZtunnel } from "./node-admin.ts";

const NOT_FOUND = 404;

interface PolicyTrial {
  readonly policy: string;
  readonly action: string;
  readonly scope: string;
  readonly dryRun: boolean;
  readonly matched: boolean;
  /** Why it did not match. */
  readonly miss?: string;
}

interface Explanation {
  readonly source: { readonly workload: string; readonly identity: string };
  readonly destination: string;
  readonly steps: readonly { readonly question: string; readonly answer: string }[];
  readonly path: string;
  readonly verdict: "allowed" | "denied" | "unreachable";
  readonly reason: string;
  readonly decidedBy?: string;
  readonly policies: readonly PolicyTrial[];
}

export async function explain(
  home: Home,
  sourceName: string,
  destinationName: string,
  format: OutputFormat,
): Promise<void> {
  const run = requireRunning(home);
  const source = findPod(run.pods, sourceName);
  const node = run.nodes.find(({ name }) => name === source.node);
  if (node === undefined) throw new UserError(`pod ${source.name} is on no node`);
  const query = new URLSearchParams({
    source: `${source.namespace}/${source.name}`,
    destination: destinationOf(run.pods, source, destinationName),
  });
  const { status, body } = await askZtunnel(node, `/explain?${query.toString()}`);
  if (status === NOT_FOUND) {
    throw new UserError(
      `ztunnel on ${node.name} has no /explain on its admin port: only Ambit's ztunnel explains itself`,
    );
  }
  if (status !== 200) throw new UserError(`ztunnel on ${node.name}: ${body.trim()}`);
  const explanation = JSON.parse(body) as Explanation;
  if (format === "json") printJson({ node: node.name, ...explanation });
  else console.log(renderExplanation(node.name, explanation));
}

/** A pod is asked for by its full name, everything else as the application would write it. */
function destinationOf(pods: readonly PodEntry[], source: PodEntry, text: string): string {
  const colon = text.lastIndexOf(":");
  const port = text.slice(colon + 1);
  if (colon <= 0 || !/^\d{1,5}$/.test(port)) {
    throw new UserError(`"${text}" has no port: write DESTINATION:PORT`, 2);
  }
  const host = text.slice(0, colon);
  const pod = pods.find(
    ({ namespace, name }) =>
      host === `${name}.${namespace}` ||
      host === `${namespace}/${name}` ||
      (host === name && namespace === source.namespace),
  );
  return pod === undefined ? text : `${pod.namespace}/${pod.name}:${port}`;
}

export function renderExplanation(node: string, explanation: Explanation): string {
  const { source, destination, steps, verdict, reason, decidedBy, policies } = explanation;
  const width = Math.max(0, ...steps.map(({ question }) => question.length));
  return [
    `${source.workload} -> ${destination}, decided by ztunnel on ${node}`,
    `identity  ${source.identity}`,
    "",
    ...steps.map(({ question, answer }) => `  ${question.padEnd(width)}  ${answer}`),
    ...(policies.length > 0 ? ["", "policies at the destination"] : []),
    ...policies.map(renderTrial),
    "",
    `${verdict.toUpperCase()}${decidedBy === undefined ? "" : ` by ${decidedBy}`}: ${reason}`,
  ].join("\n");
}

function renderTrial({ policy, action, dryRun, matched, miss }: PolicyTrial): string {
  const verdict = matched ? "matches" : "does not match";
  const why = miss === undefined ? "" : `: ${miss}`;
  return `  ${action.toUpperCase()} ${policy}${dryRun ? " (dry run)" : ""} ${verdict}${why}`;
}
