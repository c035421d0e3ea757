// `npm run bench`: every contender in one run, interleaved, medians and ratios. Options:
//   --rounds N (9)  --seconds N (each contender's turn in a round, 1)  --peer-ztunnel PATH  --json
//   --baseline FOLDER (another checkout of this repository)  --only TEXT (of a contender's name)
//   --rows KEY,… (of load.ts)  --memory (resident memory instead of speed)
//   --routed (pods are routed by their node, which tracks connections, instead of on a bridge)
// README.md says what the figures mean and what was tried.

import { execFileSync } from "node:child_process";
import { parseArgs } from "node:util";
import { UserError } from "@ambit/common/process/errors.ts";
import { runMain } from "@ambit/common/process/run.ts";
import {
  ambitCrossNode,
  bystander,
  checkout,
  type Contender,
  crossNode,
  noMesh,
  sameNode,
  startServers,
  steered,
} from "./contenders.ts";
import { cgroupMicroseconds, cpuMicroseconds } from "./cpu.ts";
import { type Row, ROWS } from "./load.ts";
import { CONNECTIONS, measureMemory, type MemoryRow, WORKLOADS } from "./memory.ts";
import { type NodeNetwork, SERVER_IP, Topology } from "./topology.ts";

const TOOLS = ["wrk", "iperf3", "nginx", "nft", "ip", "curl"];

interface Result {
  readonly contender: string;
  readonly row: string;
  readonly unit: string;
  readonly median: number;
  readonly toNoMesh: number;
  readonly toPeer?: number;
  /** Microseconds of the proxies' processor time per request, or per MiB. */
  readonly cpu: number;
  /** The same of everybody: clients, servers and proxies. */
  readonly cpuOfAll: number;
}

/**
 * How long each load runs before it is measured, for every contender alike: a just-in-time compiler
 * needs a few ten thousand requests to be what it is for the rest of its life, and so do the caches
 * and windows of any other.
 */
const WARM_UP_SECONDS = 3;

await runMain(async () => {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "1" },
      rounds: { type: "string", default: "9" },
      "peer-ztunnel": { type: "string" },
      baseline: { type: "string" },
      only: { type: "string" },
      rows: { type: "string" },
      json: { type: "boolean", default: false },
      memory: { type: "boolean", default: false },
      routed: { type: "boolean", default: false },
    },
  });
  requireTools();
  const peer = values["peer-ztunnel"];
  const contenders = [
    noMesh,
    bystander,
    ...(peer === undefined ? [] : [crossNode("peer ztunnel, cross-node", [peer])]),
    ...ours(),
    ...(values.baseline === undefined ? [] : ours(checkout("baseline", values.baseline))),
  ].filter(
    ({ name }) => values.only === undefined || name === noMesh.name || name.includes(values.only),
  );
  if (values.memory) return compareMemory(contenders, values.json);
  const rows = rowsOf(values.rows);
  const samples = await measure(contenders, rows, {
    seconds: Number(values.seconds),
    rounds: Number(values.rounds),
    quiet: values.json,
    network: values.routed ? "routes" : "bridge",
  });
  const results = summarise(contenders, rows, samples);
  if (values.json) console.log(JSON.stringify(results, undefined, 2));
  else printTable(results);
  process.exit(0);
});

function ours(tree?: ReturnType<typeof checkout>): Contender[] {
  return [
    ambitCrossNode(tree),
    sameNode("hbone", tree),
    sameNode("local", tree),
    steered("local", tree),
    steered("direct", tree),
  ];
}

function rowsOf(keys: string | undefined): readonly Row[] {
  const wanted = keys?.split(",");
  const unknown = wanted?.find((key) => !ROWS.some((row) => row.key === key));
  if (unknown !== undefined) {
    const known = ROWS.map(({ key }) => key).join(", ");
    throw new UserError(`--rows knows no "${unknown}": use some of ${known}`);
  }
  return ROWS.filter(({ key }) => wanted?.includes(key) ?? true);
}

function requireTools(): void {
  if (process.getuid?.() !== 0)
    throw new UserError("the bench needs root: it makes network namespaces");
  const missing = TOOLS.filter((tool) => {
    try {
      execFileSync("which", [tool], { stdio: "ignore" });
      return false;
    } catch {
      return true;
    }
  });
  if (missing.length > 0)
    throw new UserError(`the bench needs ${missing.join(", ")}: install them with apt-get`);
}

interface Sample {
  readonly value: number;
  readonly cpu: number;
  readonly cpuOfAll: number;
}

type Samples = Map<string, Sample[]>;

interface Plan {
  readonly seconds: number;
  readonly rounds: number;
  readonly quiet: boolean;
  readonly network: NodeNetwork;
}

/** A contender in a network of its own, with servers of its own. */
interface Stage {
  readonly contender: Contender;
  readonly topology: Topology;
  readonly pids: readonly number[];
  down(): Promise<void>;
}

async function raise(contender: Contender, network: NodeNetwork): Promise<Stage> {
  const topology = new Topology(network);
  topology.up();
  try {
    const stopServers = await startServers(topology);
    const running = await contender.start(topology);
    const pids = running.processes.map(({ pid }) => pid!);
    const down = async () => {
      topology.cgroup.enter();
      await running.stop();
      await stopServers();
      topology.down();
    };
    topology.cgroup.leave();
    return { contender, topology, pids, down };
  } catch (error) {
    topology.down();
    throw error;
  }
}

/** All of them stand side by side and take turns, so that what the machine does besides hits all alike. */
async function measure(
  contenders: readonly Contender[],
  rows: readonly Row[],
  { seconds, rounds, quiet, network }: Plan,
): Promise<Samples> {
  const stages: Stage[] = [];
  const samples: Samples = new Map();
  try {
    for (const contender of contenders) stages.push(await raise(contender, network));
    for (const row of rows) {
      if (!quiet) console.log(`${row.name}: ${rounds} rounds of ${stages.length} contenders`);
      for (const stage of stages) sample(row, stage, row.warmUpSeconds ?? WARM_UP_SECONDS);
      for (let round = 0; round < rounds; round++) {
        for (const stage of turns(stages, round)) {
          const key = `${stage.contender.name}\n${row.name}`;
          samples.getOrInsertComputed(key, (): Sample[] => []).push(sample(row, stage, seconds));
        }
      }
    }
  } finally {
    for (const stage of stages) await stage.down();
  }
  return samples;
}

/** Another order in each round: who comes first, and who comes after whom. */
function turns(stages: readonly Stage[], round: number): Stage[] {
  const first = round % stages.length;
  const order = [...stages.slice(first), ...stages.slice(0, first)];
  return round % 2 === 0 ? order : order.reverse();
}

function sample(row: Row, { topology, pids }: Stage, seconds: number): Sample {
  const { cgroup } = topology;
  cgroup.enter();
  const [before, beforeOfAll] = [cpuMicroseconds(pids), cgroupMicroseconds(cgroup.folder)];
  const { value, work } = row.measure(topology, SERVER_IP, seconds);
  const [after, afterOfAll] = [cpuMicroseconds(pids), cgroupMicroseconds(cgroup.folder)];
  cgroup.leave();
  return { value, cpu: (after - before) / work, cpuOfAll: (afterOfAll - beforeOfAll) / work };
}

async function compareMemory(contenders: readonly Contender[], json: boolean): Promise<void> {
  const topology = new Topology("bridge");
  const rows: MemoryRow[] = [];
  topology.up();
  try {
    const stopServers = await startServers(topology);
    for (const contender of contenders) {
      if (contender === noMesh || contender === bystander) continue;
      if (!json) console.log(`memory: ${contender.name}`);
      rows.push(await measureMemory(contender, topology, SERVER_IP));
    }
    await stopServers();
  } finally {
    topology.down();
  }
  if (json) console.log(JSON.stringify(rows, undefined, 2));
  else printMemory(rows);
  process.exit(0);
}

function printMemory(rows: readonly MemoryRow[]): void {
  printColumns([
    ["contender", `${WORKLOADS} workloads`, `and ${CONNECTIONS} connections`, "a connection"],
    ...rows.map(({ contender, residentMiB, connectedMiB, connectionKiB }) => [
      contender,
      `${residentMiB.toFixed(1)} MiB`,
      `${connectedMiB.toFixed(1)} MiB`,
      `${connectionKiB.toFixed(1)} KiB`,
    ]),
  ]);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function summarise(
  contenders: readonly Contender[],
  rows: readonly Row[],
  samples: Samples,
): Result[] {
  const of = (contender: string, row: string, figure: keyof Sample = "value") =>
    median((samples.get(`${contender}\n${row}`) ?? []).map((sample) => sample[figure]));
  const peer = contenders.find(({ name }) => name.startsWith("peer"));
  return rows.flatMap(({ name: row, unit }) =>
    contenders.map(({ name }) => ({
      contender: name,
      row,
      unit,
      median: of(name, row),
      toNoMesh: of(name, row) / of(noMesh.name, row),
      ...(peer && { toPeer: of(name, row) / of(peer.name, row) }),
      cpu: of(name, row, "cpu"),
      cpuOfAll: of(name, row, "cpuOfAll"),
    })),
  );
}

function printTable(results: readonly Result[]): void {
  const hasPeer = results.some(({ toPeer }) => toPeer !== undefined);
  const header = ["figure", "contender", "median", "to no mesh", ...(hasPeer ? ["to peer"] : [])];
  header.push("CPU each", "CPU of all");
  const lines = results.map((result) => {
    const { row, contender, median: value, unit, toNoMesh, toPeer, cpu, cpuOfAll } = result;
    return [
      row,
      contender,
      `${value < 100 ? value.toFixed(2) : Math.round(value)} ${unit}`,
      `${toNoMesh.toFixed(2)}×`,
      ...(hasPeer ? [`${toPeer?.toFixed(2)}×`] : []),
      cpu === 0 ? "" : `${cpu.toFixed(1)} µs`,
      `${cpuOfAll.toFixed(1)} µs`,
    ];
  });
  printColumns([header, ...lines]);
}

function printColumns(lines: readonly (readonly string[])[]): void {
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  for (const line of lines) {
    const cells = line.map((cell, i) => cell.padEnd(widths[i]!));
    console.log(cells.join("  ").trimEnd());
  }
}
