// Wires ztunnel's main thread: workers, certificates, the mesh (xDS or a file), the pods (ZDS or one
// dedicated workload), and the servers around them. Starts in ztunnel's order (§2.2), stops by draining.

import { systemClock } from "@ambit/common/process/clock.ts";
import { startHttpServer, type HttpServer } from "@ambit/common/process/http-server.ts";
import { Readiness } from "@ambit/common/process/readiness.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { Log } from "@ambit/common/telemetry/log.ts";
import { mergeFamilies, metricsReply } from "@ambit/common/telemetry/exposition.ts";
import { adminRoutes } from "./admin.ts";
import type { Config } from "./config.ts";
import { createCaClient } from "./identity/create-ca-client.ts";
import { Priority, SecretManager, type SecretState } from "./identity/secret-manager.ts";
import { PodRegistry } from "./inpod/pod-registry.ts";
import { ZdsClient } from "./inpod/zds-client.ts";
import { MainMetrics } from "./metrics.ts";
import type { WorkerMessage } from "./worker/protocol.ts";
import { WorkerHost } from "./worker/host.ts";
import { startMesh, type Mesh } from "./xds/mesh.ts";
import type { SpiffeId } from "@ambit/common/tls/identity.ts";

export interface App {
  readonly stopped: Promise<void>;
  /** Starts draining; `stopped` resolves when that is over. */
  stop(): void;
}

/** Builds and starts everything; rejects with a UserError when the environment does not allow it. */
export async function buildApp(config: Config): Promise<App> {
  const log = new Log({ format: config.logFormat, level: config.logLevel });
  const main = log.scope("ztunnel");
  const readiness = new Readiness();
  readiness.expect("workers", "mesh state", "pods");
  const { promise: stopped, resolve: finish } = Promise.withResolvers<void>();

  const workers = new WorkerHost(config, {
    onMessage: (message) => onWorkerMessage(secrets, message),
    onDeath: (error) => {
      main.error("datapath worker died, exiting", { error: errorMessage(error) });
      process.exit(1);
    },
  });
  const secrets = new SecretManager({
    ca: createCaClient(config, systemClock, log.scope("ca")),
    clock: systemClock,
    random: Math.random,
    onChange: (id, state) => void sendCertificate(workers, id, state),
  });
  const pods = new PodRegistry(workers, systemClock, log.scope("inpod"), (pending) => {
    if (pending > 0) readiness.expect("unserved pods");
    else readiness.done("unserved pods");
  });
  const metrics = new MainMetrics(config, pods);

  const servers: HttpServer[] = [
    await startHttpServer({
      host: "::",
      port: config.readinessPort,
      routes: readiness.routes("/healthz/ready"),
    }),
    await startHttpServer({
      host: "localhost",
      port: config.adminPort,
      routes: adminRoutes({ config, workers, secrets, pods, log, stop: () => stop() }),
    }),
    await startHttpServer({
      host: "::",
      port: config.metricsPort,
      routes: metricsRoutes(workers, metrics),
    }),
  ];
  await workers.ready();
  readiness.done("workers");
  let mesh: Mesh | undefined;
  let zds: ZdsClient | undefined;
  let stopping = false;

  const stop = () => {
    if (stopping) return;
    stopping = true;
    main.info("draining", { deadline_ms: config.drainDeadlineMs });
    zds?.close();
    void workers
      .askAll("drain", { deadlineMs: config.drainDeadlineMs })
      .catch((error: unknown) => main.warn("drain failed", { error: errorMessage(error) }))
      .then(async () => {
        mesh?.close();
        secrets.close();
        await Promise.all(servers.map((server) => server.close()));
        await workers.stop();
        main.info("stopped");
        finish();
      });
  };

  mesh = startMesh(config, workers, log.scope("xds"), metrics);
  void mesh.synced.then(async () => {
    readiness.done("mesh state");
    if (stopping) return;
    zds = await startPods(config, pods, log, readiness);
  });
  main.info("started", {
    node: config.nodeName,
    mode: config.proxyMode,
    workers: config.workerThreads,
  });
  return { stopped, stop };
}

/** Shared mode follows the node agent; dedicated mode serves one workload in our own namespace. */
async function startPods(
  config: Config,
  pods: PodRegistry,
  log: Log,
  readiness: Readiness,
): Promise<ZdsClient | undefined> {
  if (config.proxyWorkload !== undefined && config.proxyMode === "dedicated") {
    await pods.add("dedicated", config.proxyWorkload, undefined);
    readiness.done("pods");
    return undefined;
  }
  return new ZdsClient({
    path: config.zdsSocket,
    pods,
    clock: systemClock,
    log: log.scope("inpod"),
    onSynced: (synced) => (synced ? readiness.done("pods") : readiness.expect("pods")),
    onProtocolError: () => process.exit(1),
  });
}

function onWorkerMessage(
  secrets: SecretManager,
  message: Exclude<WorkerMessage, { type: "answer" | "failure" | "ready" }>,
): void {
  if (message.type === "certificateWanted") secrets.want(message.id, Priority.realTime);
  else secrets.forget(message.id);
}

async function sendCertificate(
  workers: WorkerHost,
  id: SpiffeId,
  state: SecretState | undefined,
): Promise<void> {
  if (state?.state === "available")
    await workers.askAll("certificate", { id, certificate: state.certificate });
  else if (state?.state === "unavailable")
    await workers.askAll("certificate", { id, error: state.reason });
  else if (state === undefined) await workers.askAll("certificate", { id });
}

function metricsRoutes(workers: WorkerHost, metrics: MainMetrics) {
  const reply = async (request: Parameters<typeof metricsReply>[1]) => {
    const traffic = mergeFamilies(await workers.askAll("metrics", null));
    return metricsReply([...traffic, ...(await metrics.collect())], request);
  };
  return { "GET /metrics": reply, "GET /stats/prometheus": reply };
}
