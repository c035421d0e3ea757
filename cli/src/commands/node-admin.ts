// Asking the admin port of a node's ztunnel, which listens on that node's loopback only.

import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import { netnsPath } from "../local/home.ts";
import type { RunFile } from "../local/run-file.ts";
import { type HttpAnswer, httpInNetns, LOOPBACK } from "../netns-http.ts";

const ADMIN_PORT = 15_000;

export type Node = RunFile["nodes"][number];

/** The named node, or all of them. Throws a UserError for a name that is none. */
export function selectNodes({ nodes }: RunFile, name: string | undefined): Node[] {
  if (name === undefined) return nodes;
  const node = nodes.find((candidate) => candidate.name === name);
  if (node !== undefined) return [node];
  throw new UserError(
    `there is no node "${name}": there are ${nodes.map((n) => n.name).join(", ")}`,
  );
}

/** One request to a node's ztunnel; throws a UserError when it does not answer. */
export async function askZtunnel(node: Node, path: string, method = "GET"): Promise<HttpAnswer> {
  const target = { netns: netnsPath(node.netns), ip: LOOPBACK, port: ADMIN_PORT };
  try {
    return await httpInNetns(target, path, { method });
  } catch (error) {
    throw new UserError(
      `ztunnel on ${node.name} does not answer (${errorMessage(error)}): see "ambit local logs ztunnel --node ${node.name}"`,
    );
  }
}
