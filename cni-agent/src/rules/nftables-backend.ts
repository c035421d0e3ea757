// Redirection by nftables, Istio's layout: tables inet istio-ambient-{nat,mangle,raw} in each pod and
// istio-ambient-nat on the node. Each change is one nft transaction, which is the guard: packets meet
// the old rules or the new ones. Routes come first and go last; without marks they do nothing.

import { errorMessage } from "@ambit/common/process/errors.ts";
import { hasInetTable } from "@ambit/common/sys/netlink-nftables.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { AgentError } from "../errors.ts";
import type {
  PodRedirection,
  ProbeTargets,
  RulesState,
  RulesWatch,
  TranslatingBackend,
  TranslationOptions,
} from "./backend.ts";
import { removeTranslation } from "./end-connections.ts";
import { hostTable, parseProbeTargets } from "./host-tables.ts";
import { CAPTURING_CHAINS, POD_TABLES, podTables } from "./pod-tables.ts";
import { installReturnRoutes, verifyReturnRoutes } from "./return-routes.ts";
import { compareListing, renderEmpty, renderInstall, renderRemove, type Table } from "./ruleset.ts";
import { runChecked, runCommand } from "./run-command.ts";
import { watchPod } from "./watch-pod.ts";
import { NAT_TABLE } from "./wire.ts";

export class NftablesBackend implements TranslatingBackend {
  readonly name = "nftables";
  readonly #options: TranslationOptions;

  constructor(options: TranslationOptions) {
    this.#options = options;
  }

  async install(netns: NetnsHandle, redirection: PodRedirection): Promise<void> {
    installReturnRoutes(netns, redirection.ipv6);
    const tables = podTables(redirection);
    await applyScript(netns, renderInstall(tables, unwanted(tables)));
  }

  /** The emptied base chains stay: without them the kernel would stop translating what goes on. */
  async release(netns: NetnsHandle): Promise<void> {
    await applyScript(netns, renderEmpty(NAT_TABLE, CAPTURING_CHAINS));
  }

  remove(netns: NetnsHandle): Promise<void> {
    return removeTranslation(this, netns);
  }

  /** Asked of the kernel itself: every enrolment does. */
  isPresent(netns: NetnsHandle): Promise<boolean> {
    try {
      return Promise.resolve(hasInetTable(netns.fd, NAT_TABLE));
    } catch (error) {
      const message = `cannot look for nftables rules in the pod: ${errorMessage(error)}`;
      return Promise.reject(new AgentError("command-failed", message, error));
    }
  }

  async removeRules(netns: NetnsHandle): Promise<void> {
    await applyScript(netns, renderRemove(POD_TABLES));
  }

  async verify(netns: NetnsHandle, redirection: PodRedirection): Promise<RulesState> {
    const tables = podTables(redirection);
    const listing = await runChecked(netns, ["nft", "-s", "list", "ruleset", "inet"]);
    const routes = verifyReturnRoutes(netns, redirection.ipv6);
    const rules = compareListing(listing, tables, unwanted(tables));
    return rules === routes ? rules : "drifted";
  }

  watch(netns: NetnsHandle, onChange: () => void): RulesWatch {
    return watchPod(netns, onChange);
  }

  async installHost(targets: ProbeTargets): Promise<void> {
    const table = hostTable(targets, this.#options.probeUid);
    await applyScript(this.#options.hostNetns, renderInstall([table], []));
  }

  async readHost(): Promise<ProbeTargets> {
    const command = ["nft", "list", "table", "inet", NAT_TABLE] as const;
    const { status, stdout } = await runCommand(this.#options.hostNetns, command);
    return status === 0 ? parseProbeTargets(stdout) : new Map();
  }

  async removeHost(): Promise<void> {
    await applyScript(this.#options.hostNetns, renderRemove([NAT_TABLE]));
  }
}

function unwanted(tables: readonly Table[]): string[] {
  return POD_TABLES.filter((name) => !tables.some((table) => table.name === name));
}

async function applyScript(netns: NetnsHandle | undefined, script: string): Promise<void> {
  await runChecked(netns, ["nft", "-f", "-"], script);
}
