// Which of iptables' two kinds a node uses: `nft` writes nftables, `legacy` the older tables of the
// kernel. Chosen once, on the node (Istio's order): the kind that has rules there, nft before legacy,
// else whatever the plain name stands for. Mixed kinds would each see half of the rules.

import type { IpFamily } from "@ambit/common/net/ip.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { AgentError, failureCode } from "../errors.ts";
import { runCommand } from "./run-command.ts";

/** The last part of a program's name; "" is the node's default, of either kind. */
export type IptablesKind = "nft" | "legacy" | "";

export interface IptablesPrograms {
  readonly save: string;
  readonly restore: string;
}

export function iptablesPrograms(kind: IptablesKind, family: IpFamily): IptablesPrograms {
  const name = `${family === 4 ? "iptables" : "ip6tables"}${kind === "" ? "" : `-${kind}`}`;
  return { save: `${name}-save`, restore: `${name}-restore` };
}

/**
 * `forced` decides when it is given. Rejects with command-missing when the node has no iptables at all,
 * or not the kind that is forced.
 */
export async function detectIptables(
  hostNetns: NetnsHandle | undefined,
  forced?: IptablesKind,
): Promise<IptablesKind> {
  if (forced !== undefined) {
    if ((await listing(hostNetns, forced)) !== undefined) return forced;
    const message = `FORCE_IPTABLES_BINARY asks for iptables-${forced}, which does not work here`;
    throw new AgentError("command-missing", message);
  }
  for (const kind of ["nft", "legacy"] as const) {
    if (await hasRules(hostNetns, kind)) return kind;
  }
  if ((await listing(hostNetns, "")) !== undefined) return "";
  throw new AgentError("command-missing", "iptables is not installed: install it on the node");
}

/** The kinds that work here; mostly both, one or none. */
export async function usableIptables(hostNetns: NetnsHandle | undefined): Promise<IptablesKind[]> {
  const kinds = ["nft", "legacy"] as const;
  const listings = await Promise.all(kinds.map((kind) => listing(hostNetns, kind)));
  return kinds.filter((_, index) => listings[index] !== undefined);
}

async function hasRules(netns: NetnsHandle | undefined, kind: IptablesKind): Promise<boolean> {
  return /^(\[\d+:\d+\] )?-A /m.test((await listing(netns, kind)) ?? "");
}

/** Undefined when the program is missing or does not work here. */
async function listing(
  netns: NetnsHandle | undefined,
  kind: IptablesKind,
): Promise<string | undefined> {
  try {
    const { status, stdout } = await runCommand(netns, [iptablesPrograms(kind, 4).save]);
    return status === 0 ? stdout : undefined;
  } catch (error) {
    if (failureCode(error) === "command-missing") return undefined;
    throw error;
  }
}
