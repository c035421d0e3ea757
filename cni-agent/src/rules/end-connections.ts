// Ending what ztunnel holds open in a pod before its redirection goes: a connection whose redirection stops
// in the middle would send its next bytes to where it once was meant to go, in plain text.

import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { AgentError } from "../errors.ts";
import type { TranslatingBackend } from "./backend.ts";
import { removeReturnRoutes } from "./return-routes.ts";
import { runCommand } from "./run-command.ts";
import { maskedMark, PROXY_MARK } from "./wire.ts";

/**
 * Resets every connection in the pod that has this mark; applications see it at once. Usually there is none:
 * ztunnel was told before. Best effort: without `ss`, or on a kernel without SOCK_DESTROY, it is left to
 * ztunnel.
 */
export async function endConnections(netns: NetnsHandle, mark: number): Promise<void> {
  try {
    const filter = ["state", "connected", "fwmark", "=", maskedMark(mark)];
    await runCommand(netns, ["ss", "-K", "-H", "-t", ...filter]);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
  }
}

/** Takes a translation out of a pod: what ztunnel has open, then the rules, then the routes. */
export async function removeTranslation(
  backend: Pick<TranslatingBackend, "removeRules">,
  netns: NetnsHandle,
): Promise<void> {
  await endConnections(netns, PROXY_MARK);
  await backend.removeRules(netns);
  removeReturnRoutes(netns);
}
