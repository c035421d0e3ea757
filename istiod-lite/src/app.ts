// Wires istiod-lite: manifests → model → debounce → resource store → delta xDS, with the CA beside it and
// servers around it. No port for proxies opens before the whole mesh is known: a client that reconnects
// to an empty server would drop what it has.

import { logVerbosity, type Server, type ServerCredentials, setLogVerbosity } from "@grpc/grpc-js";
import { ServerCredentials as Credentials } from "@grpc/grpc-js";
import { IstioCertificateService } from "@ambit/api/gen/istio/citadel_pb.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { jsonReply, startHttpServer } from "@ambit/common/process/http-server.ts";
import { Readiness } from "@ambit/common/process/readiness.ts";
import { FolderSource } from "@ambit/common/resources/folder-source.ts";
import { prometheusReply } from "@ambit/common/telemetry/exposition.ts";
import { Log } from "@ambit/common/telemetry/log.ts";
import { allowAnyone, type Authenticator } from "@ambit/common/xds/delta-server.ts";
import { GrpcServer } from "@ambit/common/xds/grpc-server.ts";
import { addService } from "@ambit/common/xds/grpc-service.ts";
import type { Config } from "./config.ts";
import { buildCore, type Core, type Surroundings } from "./core.ts";
import { debugRoutes } from "./debug.ts";
import { tokenGate } from "./push/token-gate.ts";
import { ServingRotation } from "./serving-rotation.ts";

export interface Ports {
  readonly plaintext: number;
  readonly secure: number;
  readonly http: number;
  readonly metrics: number;
}

export interface App {
  readonly ports: Ports;
  /** Every root that proxies should trust now. */
  rootBundlePem(): string;
  readonly stopped: Promise<void>;
  /** Ends streams, closes ports within the drain time; `stopped` resolves when that is done. */
  stop(): void;
}

/** Builds and starts everything. Rejects with a UserError when the environment does not allow it. */
export async function buildApp(config: Config, given: Partial<Surroundings> = {}): Promise<App> {
  const around: Surroundings = {
    clock: given.clock ?? systemClock,
    random: given.random ?? Math.random,
    log: given.log ?? new Log({ format: config.logFormat, level: config.logLevel }),
  };
  // What grpc-js would print, we report ourselves.
  setLogVerbosity(logVerbosity.NONE);
  await using starting = new AsyncDisposableStack();
  const core = buildCore(config, around);
  starting.defer(() => (core.trust.close(), core.meshConfig.close()));
  core.meshConfig.start();
  const readiness = new Readiness();
  readiness.expect("manifests", "listeners");
  const web = await startWeb(config, core, readiness, starting);
  const source = new FolderSource(config.manifests, around.clock);
  starting.defer(() => source.close());
  for (const part of [core.pusher, core.applied, core.statuses]) starting.defer(() => part.close());
  await source.start(core.events);
  core.pusher.flush();
  readiness.done("manifests");
  const listeners = await startListeners(config, core, around, starting);
  readiness.done("listeners");
  core.metrics.started();
  const ports: Ports = { ...web, ...listeners };
  around.log.scope("istiod").info("ready", { ...ports, resources: resourceCount(core) });
  return running(core, readiness, ports, starting.move(), around);
}

function resourceCount({ store }: Core): number {
  return store.typeUrls.reduce((sum, typeUrl) => sum + store.type(typeUrl)!.size, 0);
}

async function startWeb(
  config: Config,
  core: Core,
  readiness: Readiness,
  stack: AsyncDisposableStack,
): Promise<Pick<Ports, "http" | "metrics">> {
  const { metrics, authority } = core;
  const host = config.bindAddress;
  const http = await startHttpServer({
    host,
    port: config.httpPort,
    routes: {
      ...readiness.routes("/ready"),
      ...debugRoutes({ ...core, rootBundlePem: () => authority.rootBundlePem }),
    },
  });
  stack.defer(() => http.close());
  const scrape = await startHttpServer({
    host,
    port: config.metricsPort,
    routes: {
      "GET /metrics": async (request) => prometheusReply(await metrics.families(), request),
      "GET /version": () => jsonReply({ version: config.version, component: "istiod-lite" }),
    },
  });
  stack.defer(() => scrape.close());
  return { http: http.port, metrics: scrape.port };
}

async function startListeners(
  config: Config,
  core: Core,
  { clock, log }: Surroundings,
  stack: AsyncDisposableStack,
): Promise<Pick<Ports, "plaintext" | "secure">> {
  const { authority, tokens, delta } = core;
  const listen = async (
    name: string,
    port: number,
    credentials: ServerCredentials,
    gate: Authenticator,
  ) => {
    const register = (server: Server) => {
      delta.register(server, gate);
      addService(server, IstioCertificateService, core.certificates);
    };
    const host = config.bindAddress;
    const server = await GrpcServer.listen({ name, host, port, credentials, register, clock });
    stack.defer(() => server.close(config.drainMs));
    return server.port;
  };
  const rotation = new ServingRotation(authority, config.extraSans, clock);
  stack.defer(() => rotation.close());
  const gate = tokenGate(tokens, log.scope("xds"));
  return {
    plaintext: await listen("xDS", config.plaintextPort, Credentials.createInsecure(), allowAnyone),
    secure: await listen("xDS over TLS", config.securePort, rotation.credentials, gate),
  };
}

function running(
  core: Core,
  readiness: Readiness,
  ports: Ports,
  owned: AsyncDisposableStack,
  { log }: Surroundings,
): App {
  const { promise: stopped, resolve, reject } = Promise.withResolvers<void>();
  let stopping = false;
  const stop = () => {
    if (stopping) return;
    stopping = true;
    log.scope("istiod").info("draining");
    readiness.expect("draining");
    core.delta.close();
    owned.disposeAsync().then(resolve, reject);
  };
  const { authority } = core;
  return { ports, rootBundlePem: () => authority.rootBundlePem, stopped, stop };
}
