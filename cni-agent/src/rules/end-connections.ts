// Ending what ztunnel holds open in a pod before the rules go: a connection whose translation stops in
// the middle would send its next bytes to where it once was meant to go, in plain text.

import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { AgentError } from "../errors.ts";
import { runCommand } from "./run-command.ts";
import { MARK_MASK, PROXY_MARK } from "./wire.ts";

const MARK = `0x${PROXY_MARK.toString(16)}/0x${MARK_MASK.toString(16)}`;

/**
 * Resets every connection of ztunnel's in the pod; applications see it at once. Usually there is none:
 * ztunnel was told before. Best effort: without `ss`, or on a kernel without SOCK_DESTROY, it is left to
 * ztunnel.
 */
export async function endProxiedConnections(netns: NetnsHandle): Promise<void> {
  try {
    const filter = ["state", "connected", "fwmark", "=", MARK];
    await runCommand(netns, ["ss", "-K", "-H", "-t", ...filter]);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
  }
}
