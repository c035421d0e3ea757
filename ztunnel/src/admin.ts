// ztunnel's admin port (15000, loopback only): what istioctl reads, and what `ambit` reads besides.

import { setTimeout as delay } from "node:timers/promises";
import { Session } from "node:inspector/promises";
import { X509Certificate } from "node:crypto";
import { errorMessage } from "@ambit/common/process/errors.ts";
import {
  type HttpReply,
  jsonReply,
  type Routes,
  textReply,
} from "@ambit/common/process/http-server.ts";
import { Log, parseLevelFilter } from "@ambit/common/telemetry/log.ts";
import type { Config } from "./config.ts";
import type { PodRegistry } from "./inpod/pod-registry.ts";
import type { SecretManager, SecretState } from "./identity/secret-manager.ts";
import type { WorkerHost } from "./worker/host.ts";

export interface AdminParts {
  readonly config: Config;
  readonly workers: WorkerHost;
  readonly secrets: SecretManager;
  readonly pods: PodRegistry;
  readonly log: Log;
  stop(): void;
}

const PROFILE_SECONDS_MAX = 300;
const PROFILE_SECONDS_DEFAULT = 10;

const INDEX = `<!doctype html><title>ztunnel</title><h1>ztunnel</h1><ul>
<li><a href="/config_dump">/config_dump</a> the mesh as this node knows it
<li><a href="/connections">/connections</a> live connections
<li>/explain?source=namespace/pod&amp;destination=host:port why a connection goes where it goes
<li>/logging?level=debug (POST) <li>/quitquitquit (POST) <li><a href="/debug/pprof/profile?seconds=10">/debug/pprof/profile</a>
</ul>\n`;

export function adminRoutes(parts: AdminParts): Routes {
  return {
    "GET /": () => ({
      status: 200,
      body: INDEX,
      headers: { "content-type": "text/html; charset=utf-8" },
    }),
    "GET /config_dump": async () => jsonReply(await configDump(parts)),
    "GET /connections": async () =>
      jsonReply((await parts.workers.askAll("connections", null)).flat()),
    "GET /explain": ({ query }) => explain(parts, query),
    "POST /logging": ({ query }) => setLogging(parts, query),
    "POST /quitquitquit": () => {
      parts.stop();
      return textReply("shutdown now\n");
    },
    "GET /debug/pprof/profile": ({ query }) => profile(query),
  };
}

async function configDump({
  config,
  workers,
  secrets,
  pods,
}: AdminParts): Promise<Record<string, unknown>> {
  const [state, connections] = await Promise.all([
    workers.askOne("stateDump", null),
    workers.askAll("connections", null),
  ]);
  return {
    ...state,
    certificates: secrets.secrets.map(({ id, state: secret }) => dumpSecret(id, secret)),
    workloadState: pods.dump(connections.flat()),
    version: { version: config.version, component: "ztunnel" },
    config,
  };
}

function dumpSecret(identity: string, secret: SecretState): Record<string, unknown> {
  if (secret.state !== "available") {
    const state =
      secret.state === "initializing" ? "Initializing" : `Unavailable: ${secret.reason}`;
    return { identity, state, certChain: [], rootCerts: [] };
  }
  const { leafPem, intermediatesPem, rootsPem } = secret.certificate;
  return {
    identity,
    state: "Available",
    certChain: [leafPem, ...intermediatesPem].map(dumpCertificate),
    rootCerts: rootsPem.map(dumpCertificate),
  };
}

/** istioctl expects the PEM in base64 once more. */
function dumpCertificate(pem: string): Record<string, string> {
  const { serialNumber, validFromDate, validToDate } = new X509Certificate(pem);
  return {
    pem: Buffer.from(pem).toString("base64"),
    serialNumber: BigInt(`0x${serialNumber}`).toString(),
    validFrom: validFromDate.toISOString(),
    expirationTime: validToDate.toISOString(),
  };
}

async function explain({ workers }: AdminParts, query: URLSearchParams): Promise<HttpReply> {
  const source = query.get("source");
  const destination = query.get("destination");
  if (source === null || destination === null) {
    return textReply("explain needs ?source=namespace/pod&destination=host:port\n", 400);
  }
  try {
    return jsonReply(await workers.askOne("explain", { source, destination }));
  } catch (error) {
    return textReply(`${errorMessage(error)}\n`, 404);
  }
}

/** `?level=` adds to the filter, `?reset` starts over from the configured one (ztunnel §7.3). */
async function setLogging(
  { config, workers, log }: AdminParts,
  query: URLSearchParams,
): Promise<HttpReply> {
  const base = query.has("reset") ? config.logLevel : log.level;
  const level = query.get("level");
  const filter = level === null || level === "" ? base : `${base},${level}`;
  try {
    parseLevelFilter(filter);
  } catch (error) {
    return textReply(`${errorMessage(error)}\n`, 400);
  }
  log.setLevel(filter);
  await workers.askAll("logLevel", { filter });
  return textReply(`current log level is ${log.level}\n`);
}

/** A CPU profile of the main thread in V8's format. */
async function profile(query: URLSearchParams): Promise<HttpReply> {
  const seconds = Number(query.get("seconds") ?? PROFILE_SECONDS_DEFAULT);
  if (!(seconds >= 1 && seconds <= PROFILE_SECONDS_MAX)) {
    return textReply(`seconds must be 1 to ${PROFILE_SECONDS_MAX}\n`, 400);
  }
  const session = new Session();
  session.connect();
  try {
    await session.post("Profiler.enable");
    await session.post("Profiler.start");
    await delay(seconds * 1000);
    const { profile: result } = await session.post("Profiler.stop");
    return jsonReply(result);
  } finally {
    session.disconnect();
  }
}
