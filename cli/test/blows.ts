// Blows to a local mesh, and how much longer it may take to get over them on a busy machine.

import { availableParallelism, loadavg } from "node:os";
import type { Lab } from "./lab.ts";

/** Kills one program of the mesh without warning; its supervisor starts it again. */
export async function kill(lab: Lab, name: string, node?: string): Promise<void> {
  const { pid } = await lab.component(name, node);
  process.kill(pid!, "SIGKILL");
}

/**
 * How many programs want each processor now, at least 1: coming back after a kill is starting a program,
 * and that takes so much longer.
 */
export function slowness(): number {
  return Math.max(1, loadavg()[0]! / availableParallelism());
}
