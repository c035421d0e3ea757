// ztunnel's admin port (15000, loopback only): what istioctl reads, and what `ambit` reads besides.

import { sumUsage } from "./telemetry/pod-account.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import {
  type HttpReply,
  jsonReply,
  type Routes,
  textReply,
} from "@ambit/common/process/http-server.ts";
import { type Log, parseLevelFilter } from "@ambit/common/telemetry/log.ts";
import { type DumpParts, configDump } from "./config-dump.ts";
import type { Config } from "./config.ts";
import { type ProfiledThreads, cpuProfile, heapProfile } from "./profile.ts";
import type { Workers } from "./worker/host.ts";

export interface AdminParts {
  readonly config: Config;
  readonly workers: Workers & ProfiledThreads;
  readonly secrets: { readonly secrets: DumpParts["secrets"] };
  readonly pods: DumpParts["pods"];
  readonly log: Log;
  stop(): void;
}

const INDEX = `<!doctype html><title>ztunnel</title><h1>ztunnel</h1><ul>
<li><a href="/config_dump">/config_dump</a> the mesh as this node knows it
<li><a href="/connections">/connections</a> live connections
<li>/explain?source=namespace/pod&amp;destination=host:port why a connection goes where it goes
<li>/explain?id=ID what became of a connection, by the id of its access line
<li>/logging?level=debug (POST), /logging?reset (POST)
<li>/quitquitquit (POST)
<li><a href="/debug/pprof/profile?seconds=10">/debug/pprof/profile</a> CPU, ?thread=main for the main thread
<li><a href="/debug/pprof/heap">/debug/pprof/heap</a> sampled allocations, likewise
</ul>\n`;

export function adminRoutes(parts: AdminParts): Routes {
  return {
    "GET /": () => ({
      status: 200,
      body: INDEX,
      headers: { "content-type": "text/html; charset=utf-8" },
    }),
    "GET /config_dump": async () => jsonReply(await dump(parts)),
    "GET /connections": async () =>
      jsonReply((await parts.workers.askAll("connections", null)).flat()),
    "GET /explain": ({ query }) => explain(parts, query),
    "POST /logging": ({ query }) => setLogging(parts, query),
    "POST /quitquitquit": () => {
      parts.stop();
      return textReply("shutdown now\n");
    },
    "GET /debug/pprof/profile": ({ query }) => cpuProfile(parts.workers, query),
    "GET /debug/pprof/heap": ({ query }) => heapProfile(parts.workers, query),
  };
}

async function dump({
  config,
  workers,
  secrets,
  pods,
}: AdminParts): Promise<Record<string, unknown>> {
  const [state, connections, usage] = await Promise.all([
    workers.askOne("stateDump", null),
    workers.askAll("connections", null),
    workers.askAll("podUsage", null),
  ]);
  return configDump({
    config,
    state,
    secrets: secrets.secrets,
    connections: connections.flat(),
    usage: sumUsage(usage.flat()),
    pods,
  });
}

async function explain(parts: AdminParts, query: URLSearchParams): Promise<HttpReply> {
  const { workers } = parts;
  const id = query.get("id");
  if (id !== null) return explainConnection(parts, id);
  const source = query.get("source");
  const destination = query.get("destination");
  if (source === null || destination === null) {
    const usage = "explain needs ?source=namespace/pod&destination=host:port, or ?id=ID\n";
    return textReply(usage, 400);
  }
  try {
    return jsonReply(await workers.askOne("explain", { source, destination }));
  } catch (error) {
    return textReply(`${errorMessage(error)}\n`, 404);
  }
}

/** What became of a connection: it lives, or it failed not long ago. */
async function explainConnection({ workers }: AdminParts, id: string): Promise<HttpReply> {
  const [connections, failures] = await Promise.all([
    workers.askAll("connections", null),
    workers.askAll("failures", { id }),
  ]);
  const live = connections.flat().filter((connection) => connection.id === id);
  const failed = failures.flat();
  if (live.length + failed.length > 0) return jsonReply({ id, live, failed });
  const unknown = "neither live nor among the latest failures of this node";
  return textReply(`connection ${id} is ${unknown}\n`, 404);
}

/** `?level=` adds to the filter, `?reset` starts over from the configured one (ztunnel §7.3). */
async function setLogging(
  { config, workers, log }: AdminParts,
  query: URLSearchParams,
): Promise<HttpReply> {
  const base = query.has("reset") ? config.logLevel : log.level;
  const level = query.get("level");
  const filter = level === null || level === "" ? base : combine(base, level);
  try {
    parseLevelFilter(filter);
  } catch (error) {
    return textReply(`${errorMessage(error)}\n`, 400);
  }
  log.setLevel(filter);
  await workers.askAll("logLevel", { filter });
  return textReply(`current log level is ${log.level}\n`);
}

/** The later part wins; what it replaces goes, so that repeated calls do not grow the filter. */
function combine(base: string, added: string): string {
  const parts = new Map<string, string>();
  for (const part of `${base},${added}`.split(",")) {
    const text = part.trim();
    const scope = text.includes("=") ? text.slice(0, text.indexOf("=")) : "";
    parts.set(scope, text);
  }
  return [...parts.values()].join(",");
}
