// The memory of a proxy: resident with a large mesh, the same with many idle connections, and what one
// of those costs. Of two proxies the larger one counts.

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Contender } from "./contenders.ts";
import { HTTP_PORT, type Topology } from "./topology.ts";

/** What the design promises to hold. */
export const WORKLOADS = 10_000;
export const CONNECTIONS = 1_000;

const CLIENTS = resolve(import.meta.dirname, "idle-clients.ts");
/** What was allocated to get there is collected and given back before anyone looks: `tidyWhenIdle`. */
const SETTLE_MS = 20_000;

export interface MemoryRow {
  readonly contender: string;
  readonly residentMiB: number;
  readonly connectedMiB: number;
  readonly connectionKiB: number;
}

/** Takes some forty seconds. */
export async function measureMemory(
  contender: Contender,
  topology: Topology,
  target: string,
): Promise<MemoryRow> {
  const running = await contender.start(topology, WORKLOADS);
  try {
    // A first round, so that what connections need once is not taken for what each of them needs.
    const first = await connect(topology, target);
    await disconnect(first);
    await delay(SETTLE_MS);
    const before = running.processes.map(residentKiB);
    const clients = await connect(topology, target);
    await delay(SETTLE_MS);
    const after = running.processes.map(residentKiB);
    await disconnect(clients);
    const grown = after.map((resident, i) => resident - before[i]!);
    return {
      contender: contender.name,
      residentMiB: Math.max(...before) / 1024,
      connectedMiB: Math.max(...after) / 1024,
      connectionKiB: Math.max(...grown) / CONNECTIONS,
    };
  } finally {
    await running.stop();
  }
}

/** Resolves when all connections are there, and idle. */
async function connect(topology: Topology, target: string): Promise<ChildProcess> {
  const args = [CLIENTS, target, String(HTTP_PORT), String(CONNECTIONS)];
  const clients = topology.spawn("client", [process.execPath, ...args]);
  await once(clients.stdout!, "data");
  return clients;
}

async function disconnect(clients: ChildProcess): Promise<void> {
  clients.kill("SIGKILL");
  await once(clients, "exit");
}

function residentKiB({ pid }: ChildProcess): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN);
}
