// Policy routing inside a pod: packets marked as answers to ztunnel's spoofed connections are local,
// whatever their destination (`ip rule` by mark, table 100). Both families where IPv6 is on.

import { readFileSync } from "node:fs";
import type { Ip } from "@ambit/common/net/ip.ts";
import { inNetns, type NetnsHandle } from "@ambit/common/sys/netns.ts";
import { AgentError } from "../errors.ts";
import type { RulesState } from "./backend.ts";
import { runCommand } from "./run-command.ts";
import * as wire from "./wire.ts";

type Family = "-4" | "-6";

const MARK = wire.maskedMark(wire.CONNECTION_MARK);
const RULE = `priority ${wire.RULE_PRIORITY} fwmark ${MARK} lookup ${wire.ROUTE_TABLE}`;
const ROUTE = `local default dev lo table ${wire.ROUTE_TABLE}`;

/** `ip -force` reports each failed line and goes on; these two mean that it was done before. */
const ALREADY = /File exists|No such file or directory|No such process/;

/** The address that marked connections of each family are made from; undefined: the kernel's choice. */
export type RouteSources = Partial<Readonly<Record<Family, Ip | undefined>>>;

export async function installReturnRoutes(
  netns: NetnsHandle,
  ipv6: boolean,
  sources?: RouteSources,
): Promise<void> {
  const batch = (family: Family) => {
    const source = sources?.[family] === undefined ? "" : ` src ${sources[family]}`;
    // Who makes no connections by the route leaves that of somebody who does.
    const verb = sources === undefined ? "add" : "replace";
    return `route ${verb} ${ROUTE}${source}\nrule add ${RULE}\n`;
  };
  await Promise.all(families(netns, ipv6).map((family) => runBatch(netns, family, batch(family))));
}

export async function removeReturnRoutes(netns: NetnsHandle): Promise<void> {
  const batch = `rule del ${RULE}\nroute del ${ROUTE}\n`;
  await Promise.all(families(netns, true).map((family) => runBatch(netns, family, batch)));
}

export async function verifyReturnRoutes(netns: NetnsHandle, ipv6: boolean): Promise<RulesState> {
  const wanted = families(netns, ipv6);
  const counts = await Promise.all(wanted.map((family) => countPresent(netns, family)));
  const present = counts.reduce((sum, count) => sum + count, 0);
  if (present === 0) return "absent";
  return present === wanted.length * 2 ? "ok" : "drifted";
}

/** How many of the two, rule and route, are there. */
async function countPresent(netns: NetnsHandle, family: Family): Promise<number> {
  const listing = await runBatch(
    netns,
    family,
    `rule show priority ${wire.RULE_PRIORITY}\nroute show table ${wire.ROUTE_TABLE}\n`,
  );
  const rule = new RegExp(`fwmark ${MARK} lookup ${wire.ROUTE_TABLE}`).test(listing);
  return Number(rule) + Number(/^local default dev lo/m.test(listing));
}

async function runBatch(netns: NetnsHandle, family: Family, batch: string): Promise<string> {
  const { stdout, stderr } = await runCommand(
    netns,
    ["ip", family, "-force", "-batch", "-"],
    batch,
  );
  const problems = stderr
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("Command failed") && !ALREADY.test(line))
    .filter((line) => !line.startsWith("Dump terminated"));
  if (problems.length > 0) {
    throw new AgentError("command-failed", `ip ${family} in the pod: ${problems.join("; ")}`);
  }
  return stdout;
}

function families(netns: NetnsHandle, ipv6: boolean): Family[] {
  return ipv6 && ipv6Enabled(netns) ? ["-4", "-6"] : ["-4"];
}

/** Without IPv6 on lo there is nothing to route to. */
function ipv6Enabled(netns: NetnsHandle): boolean {
  try {
    const path = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
    return inNetns(netns.fd, () => readFileSync(path, "utf8")).trim() === "0";
  } catch {
    return false;
  }
}
