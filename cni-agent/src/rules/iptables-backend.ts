// Redirection by iptables, Istio's chains: ISTIO_PRERT and ISTIO_OUTPUT in each pod's raw, mangle and
// nat tables, ISTIO_POSTRT and two ipsets on the node. For nodes without nft. Each table changes in one
// commit, and nat, which captures, comes last and goes first. Routes come before and go after.

import { existsSync } from "node:fs";
import type { IpFamily } from "@ambit/common/net/ip.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import type {
  PodRedirection,
  ProbeTargets,
  RulesState,
  RulesWatch,
  TranslatingBackend,
  TranslationOptions,
} from "./backend.ts";
import { removeTranslation } from "./end-connections.ts";
import { parseProbeSet, renderProbeSet } from "./ipset.ts";
import { type IptablesKind, iptablesPrograms } from "./iptables-binaries.ts";
import { compareTables, type Listing, parseListing, renderChange } from "./iptables-ruleset.ts";
import { hostXtTable, podXtTables, PROBE_SETS, type XtTable } from "./iptables-tables.ts";
import { installReturnRoutes, verifyReturnRoutes } from "./return-routes.ts";
import { runChecked, runCommand } from "./run-command.ts";
import { watchPod } from "./watch-pod.ts";

/** For the lock that users of the legacy kind share. */
const LOCK_WAIT_S = 5;

/**
 * Pods' tables are theirs alone: waiting for whoever rewrites the node's (kube-proxy, for seconds) would
 * be in vain. One file for all pods, since we are the only ones to take it.
 */
const POD_LOCK = { XTABLES_LOCKFILE: "/run/ambit-xtables.lock" };

export interface IptablesOptions extends TranslationOptions {
  readonly kind: IptablesKind;
}

export class IptablesBackend implements TranslatingBackend {
  readonly name = "iptables";
  readonly #options: IptablesOptions;

  constructor(options: IptablesOptions) {
    this.#options = options;
  }

  async install(netns: NetnsHandle, redirection: PodRedirection): Promise<void> {
    installReturnRoutes(netns, redirection.ipv6);
    await Promise.all(
      families().map((family) =>
        this.#change(netns, family, wantedTables(redirection, family), POD_LOCK),
      ),
    );
  }

  /** The built-in chains stay, so that the kernel goes on translating what was captured. */
  async release(netns: NetnsHandle): Promise<void> {
    for (const family of families()) {
      const listing = await this.#listing(netns, family);
      await this.#apply(netns, family, renderChange(listing, [], ["nat"]), POD_LOCK);
    }
  }

  remove(netns: NetnsHandle): Promise<void> {
    return removeTranslation(this, netns);
  }

  async isPresent(netns: NetnsHandle): Promise<boolean> {
    const listings = await Promise.all(families().map((family) => this.#listing(netns, family)));
    return listings.some((listing) => compareTables(listing, []) !== "ok");
  }

  async removeRules(netns: NetnsHandle): Promise<void> {
    await Promise.all(families().map((family) => this.#change(netns, family, [], POD_LOCK)));
  }

  async verify(netns: NetnsHandle, redirection: PodRedirection): Promise<RulesState> {
    const wanted = families().map((family) => wantedTables(redirection, family));
    const listings = await Promise.all(families().map((family) => this.#listing(netns, family)));
    const rules = listings.map((listing, index) => compareTables(listing, wanted[index]!));
    const surplus = rules.some((state, index) => wanted[index]!.length === 0 && state !== "ok");
    if (surplus) return "drifted";
    const routes = verifyReturnRoutes(netns, redirection.ipv6);
    const states = [routes, ...rules.filter((_, index) => wanted[index]!.length > 0)];
    return states.every((state) => state === routes) ? routes : "drifted";
  }

  watch(netns: NetnsHandle, onChange: () => void): RulesWatch {
    return watchPod(netns, onChange);
  }

  async installHost(targets: ProbeTargets): Promise<void> {
    const { hostNetns, probeUid } = this.#options;
    for (const family of families()) {
      const sets = renderProbeSet(targets, family);
      await runChecked(hostNetns, ["ipset", "restore"], sets);
      const table = hostXtTable(family, probeUid);
      const listing = await this.#listing(hostNetns, family);
      if (compareTables(listing, [table]) === "ok") continue;
      await this.#apply(hostNetns, family, renderChange(listing, [table]));
    }
  }

  async readHost(): Promise<ProbeTargets> {
    const { hostNetns } = this.#options;
    const saved = await Promise.all(
      families().map((family) => runCommand(hostNetns, ["ipset", "save", PROBE_SETS[family]])),
    );
    return parseProbeSet(saved.map(({ stdout }) => stdout).join("\n"));
  }

  async removeHost(): Promise<void> {
    const { hostNetns } = this.#options;
    for (const family of families()) {
      await this.#change(hostNetns, family, []);
      await runCommand(hostNetns, ["ipset", "destroy", PROBE_SETS[family]]);
    }
  }

  async #change(
    netns: NetnsHandle | undefined,
    family: IpFamily,
    wanted: readonly XtTable[],
    env?: Readonly<Record<string, string>>,
  ): Promise<void> {
    const listing = await this.#listing(netns, family);
    await this.#apply(netns, family, renderChange(listing, wanted), env);
  }

  async #listing(netns: NetnsHandle | undefined, family: IpFamily): Promise<Listing> {
    const { save } = iptablesPrograms(this.#options.kind, family);
    return parseListing(await runChecked(netns, [save]));
  }

  async #apply(
    netns: NetnsHandle | undefined,
    family: IpFamily,
    script: string,
    env?: Readonly<Record<string, string>>,
  ): Promise<void> {
    if (script === "") return;
    const { restore } = iptablesPrograms(this.#options.kind, family);
    const command = [restore, "--noflush", "--wait", String(LOCK_WAIT_S)] as const;
    await runChecked(netns, command, script, env);
  }
}

/** IPv6 that is not wanted must be looked at as well: it may have been wanted before. */
function families(): readonly IpFamily[] {
  return existsSync("/proc/sys/net/ipv6") ? [4, 6] : [4];
}

function wantedTables(redirection: PodRedirection, family: IpFamily): XtTable[] {
  return family === 6 && !redirection.ipv6 ? [] : podXtTables(redirection, family);
}
