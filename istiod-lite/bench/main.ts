// The scale bench of istiod-lite: what a mesh of ten thousand pods costs to build, to send to proxies that
// connect, and to keep current. Options:
//   --pods N (10000)  --proxies N (100)  --changes N (200)  --json

import { parseArgs } from "node:util";
import { runMain } from "@ambit/common/process/run.ts";
import { BenchMesh, type Change } from "./bench-mesh.ts";
import { cpuMs } from "./cpu.ts";
import { meshEvents, type MeshSize, podEvent, policyEvent } from "./mesh.ts";
import { Proxies } from "./proxies.ts";

interface Row {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** Not to be exceeded. */
  readonly target?: number;
}

await runMain(async () => {
  const { values } = parseArgs({
    options: {
      pods: { type: "string", default: "10000" },
      proxies: { type: "string", default: "100" },
      changes: { type: "string", default: "200" },
      json: { type: "boolean", default: false },
    },
  });
  const pods = Number(values.pods);
  const size: MeshSize = { pods, services: Math.ceil(pods / 10), nodes: 100, namespaces: 50 };
  const rows = await measure(size, Number(values.proxies), Number(values.changes));
  if (values.json) console.log(JSON.stringify(rows, undefined, 2));
  else for (const row of rows) console.log(format(row));
  process.exit(0);
});

async function measure(size: MeshSize, proxies: number, changes: number): Promise<Row[]> {
  const mesh = new BenchMesh();
  const rows: Row[] = [];
  const events = meshEvents(size);
  const buildMs = cpuMs(() => mesh.apply(events));
  rows.push({ what: `translate ${size.pods} pods`, value: buildMs, unit: "CPU ms" });
  const server = await mesh.listen();
  using clients = new Proxies(`127.0.0.1:${server.port}`);
  const first = await clients.open(1);
  rows.push({ what: "full push to one proxy", value: first.tookMs, unit: "ms", target: 2000 });
  rows.push({ what: "its size", value: first.bytes / 2 ** 20, unit: "MiB" });
  const crowd = await clients.open(proxies - 1);
  rows.push({ what: `full push to ${proxies - 1} more at once`, value: crowd.tookMs, unit: "ms" });
  rows.push({ what: "its CPU", value: crowd.cpuMs, unit: "CPU ms" });
  const pod = await mesh.measureChanges(clients, proxies, changes, (i) =>
    podEvent(i * 7, size, false),
  );
  rows.push(...rowsOf("one pod changes", pod, 5));
  const policy = await mesh.measureChanges(clients, proxies, changes, (i) =>
    policyEvent(1 + 10 * (i % 10), size, `client-${i}`),
  );
  rows.push(...rowsOf("one policy changes", policy));
  rows.push({ what: "memory", value: process.memoryUsage().rss / 2 ** 20, unit: "MiB RSS" });
  await server.close(0);
  return rows;
}

function rowsOf(what: string, changes: readonly Change[], targetMs?: number): Row[] {
  const middle = (of: (change: Change) => number) => percentile(changes.map(of), 0.5);
  return [
    {
      what: `${what}: translating`,
      value: middle(({ translateMs }) => translateMs),
      unit: "CPU ms",
      ...(targetMs !== undefined && { target: targetMs }),
    },
    { what: `${what}: with sending`, value: middle(({ cpuMs: all }) => all), unit: "CPU ms" },
    { what: `${what}: pushed to each`, value: middle((it) => it.resources), unit: "resources" },
    { what: `${what}: all have it, p50`, value: middle((it) => it.slowestMs), unit: "ms" },
    {
      what: `${what}: all have it, p99`,
      value: percentile(
        changes.map((it) => it.slowestMs),
        0.99,
      ),
      unit: "ms",
      target: 100,
    },
  ];
}

function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
}

function format({ what, value, unit, target }: Row): string {
  const figure = value < 10 ? value.toFixed(2) : value.toFixed(0);
  const verdict = target === undefined ? "" : ` (${value <= target ? "within" : "OVER"} ${target})`;
  return `${what.padEnd(40)} ${figure.padStart(8)} ${unit}${verdict}`;
}
