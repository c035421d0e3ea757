// The HTTP servers of ztunnel: readiness first, so that it can be asked while the rest starts; admin on
// loopback only; metrics summed over the workers.

import { readFileSync } from "node:fs";
import {
  type HttpServer,
  type Routes,
  startHttpServer,
} from "@ambit/common/process/http-server.ts";
import type { Readiness } from "@ambit/common/process/readiness.ts";
import { mergeFamilies, metricsReply } from "@ambit/common/telemetry/exposition.ts";
import type { Config } from "./config.ts";
import type { MainMetrics } from "./metrics.ts";
import type { Workers } from "./worker/host.ts";

export interface ServerPlan {
  readonly config: Config;
  readonly readiness: Readiness;
  readonly workers: Workers;
  readonly metrics: MainMetrics;
  readonly admin: Routes;
}

/** Rejects with a UserError that names the port that is taken; nothing is left listening then. */
export async function startServers(plan: ServerPlan): Promise<HttpServer[]> {
  const { config, readiness, admin } = plan;
  const everywhere = config.ipv6 ? "::" : "0.0.0.0";
  const wanted: Parameters<typeof startHttpServer>[0][] = [
    {
      host: everywhere,
      port: config.readinessPort,
      routes: readiness.routes("/healthz/ready"),
    },
    { host: everywhere, port: config.metricsPort, routes: metricsRoutes(plan) },
    { host: "127.0.0.1", port: config.adminPort, routes: admin },
  ];
  if (config.ipv6 && hasLoopback6()) {
    wanted.push({ host: "::1", port: config.adminPort, routes: admin });
  }
  const servers: HttpServer[] = [];
  try {
    for (const options of wanted) servers.push(await startHttpServer(options));
  } catch (error) {
    await Promise.all(servers.map((server) => server.close()));
    throw error;
  }
  return servers;
}

function metricsRoutes({ workers, metrics }: ServerPlan): Routes {
  const reply: Routes[string] = async (request) => {
    const traffic = mergeFamilies(await workers.askAll("metrics", null));
    return metricsReply([...traffic, ...(await metrics.collect())], request);
  };
  return { "GET /metrics": reply, "GET /stats/prometheus": reply };
}

/** Containers may have IPv6 sockets and yet no ::1. */
function hasLoopback6(): boolean {
  try {
    return readFileSync("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "utf8").trim() === "0";
  } catch {
    return false;
  }
}
