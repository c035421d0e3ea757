// ztunnel's main thread: workers, certificates, the mesh (xDS or a file), the pods (ZDS or one dedicated
// workload), and the servers around them. Starts in ztunnel's order (§2.2), stops by draining (§7.5).

import { flushCompileCache } from "node:module";
import { type Clock, sleep, systemClock } from "@ambit/common/process/clock.ts";
import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import { requireCapabilities } from "@ambit/common/sys/capabilities.ts";
import type { HttpServer } from "@ambit/common/process/http-server.ts";
import { Readiness } from "@ambit/common/process/readiness.ts";
import { Log, type Logger } from "@ambit/common/telemetry/log.ts";
import type { SpiffeId } from "@ambit/common/tls/identity.ts";
import { adminRoutes } from "./admin.ts";
import type { Config } from "./config.ts";
import { createCaClient } from "./identity/create-ca-client.ts";
import { RevocationFile } from "./identity/revocation-file.ts";
import { Priority, SecretManager, type SecretState } from "./identity/secret-manager.ts";
import { PodRegistry } from "./inpod/pod-registry.ts";
import { NodeSteering } from "./inpod/steering.ts";
import { ZdsClient } from "./inpod/zds-client.ts";
import { MainMetrics } from "./metrics.ts";
import { type ServerPlan, startServers } from "./servers.ts";
import { WorkerHost, type WorkerEvents } from "./worker/host.ts";
import { tidyWhenIdle } from "./worker/idle-memory.ts";
import type { WorkerMessage } from "./worker/protocol.ts";
import { type Mesh, startMesh } from "./xds/mesh.ts";

/** Workers cut what is left at the deadline; one that does not even answer is not waited for longer. */
const DRAIN_ANSWER_MS = 2_000;

export class App {
  readonly #config: Config;
  readonly #clock: Clock = systemClock;
  readonly #log: Log;
  readonly #main: Logger;
  readonly #readiness = new Readiness();
  readonly #workers: WorkerHost;
  readonly #secrets: SecretManager;
  readonly #pods: PodRegistry;
  readonly #metrics: MainMetrics;
  readonly #end = Promise.withResolvers<void>();
  #servers: readonly HttpServer[] = [];
  #revocations: RevocationFile | undefined;
  #mesh: Mesh | undefined;
  #zds: ZdsClient | undefined;
  #stopping = false;

  private constructor(config: Config, log: Log) {
    this.#config = config;
    this.#log = log;
    this.#main = log.scope("ztunnel");
    // A failure while starting is reported by start() itself.
    this.#end.promise.catch(() => undefined);
    this.#readiness.expect("workers", "state manager", "workload proxy manager");
    void this.#readiness.whenReady().then(flushCompileCache);
    this.#workers = new WorkerHost(config, this.#workerEvents());
    this.#secrets = new SecretManager({
      ca: createCaClient(config, this.#clock, log.scope("ca")),
      clock: this.#clock,
      random: Math.random,
      onChange: (id, state) => void this.#sendCertificate(id, state),
    });
    this.#pods = this.#podRegistry(log.scope("inpod"));
    this.#metrics = new MainMetrics(config, () => ({
      pods: this.#pods.counts,
      threadUtilization: new Map([
        ["main", performance.eventLoopUtilization().utilization],
        ...this.#workers.utilization,
      ]),
    }));
  }

  /** Starts everything; rejects with a UserError when the environment does not allow it. */
  static async start(config: Config, log = logFor(config)): Promise<App> {
    if (config.proxyMode === "shared" && config.proxyEnabled) {
      requireCapabilities("ztunnel", ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW"]);
    } else if (config.packetMark !== undefined) requireCapabilities("ztunnel", ["CAP_NET_ADMIN"]);
    const app = new App(config, log);
    tidyWhenIdle(app.#clock);
    try {
      await app.#start();
      return app;
    } catch (error) {
      await app.#workers.stop();
      throw error;
    }
  }

  /** Resolves when drained; rejects with why the process cannot go on. */
  get stopped(): Promise<void> {
    return this.#end.promise;
  }

  /** Resolves when every listener is up for the first time. */
  whenReady(): Promise<void> {
    return this.#readiness.whenReady();
  }

  /** Starts draining; idempotent. Listeners close at once, connections have until the deadline. */
  stop(): void {
    if (this.#stopping) return;
    this.#stopping = true;
    const deadlineMs = this.#config.drainDeadlineMs;
    this.#main.info("draining", { deadline_ms: deadlineMs });
    this.#zds?.close();
    this.#pods.close();
    this.#drain(deadlineMs).then(
      () => this.#end.resolve(),
      (error: unknown) => this.#fail(error),
    );
  }

  async #start(): Promise<void> {
    this.#servers = await startServers(this.#serverPlan());
    await this.#workers.ready();
    this.#readiness.done("workers");
    const { nodeName, proxyMode, workerThreads } = this.#config;
    this.#main.info("started", { node: nodeName, mode: proxyMode, workers: workerThreads });
    if (this.#stopping) return;
    this.#revocations = this.#followRevocations();
    this.#mesh = startMesh(this.#config, this.#workers, this.#log.scope("xds"), this.#metrics);
    this.#mesh.synced
      .then(() => {
        this.#readiness.done("state manager");
        return this.#stopping ? undefined : this.#startPods();
      })
      .catch((error: unknown) => this.#fail(error));
  }

  #podRegistry(log: Logger): PodRegistry {
    const parts = { workers: this.#workers, clock: this.#clock, log };
    return new PodRegistry({
      ...parts,
      steering: new NodeSteering({ ...parts, config: this.#config }),
      onPending: (pending) => {
        if (pending > 0) this.#readiness.expect("unserved pods");
        else this.#readiness.done("unserved pods");
      },
    });
  }

  #serverPlan(): ServerPlan {
    return {
      config: this.#config,
      readiness: this.#readiness,
      workers: this.#workers,
      metrics: this.#metrics,
      admin: adminRoutes({
        config: this.#config,
        workers: this.#workers,
        secrets: this.#secrets,
        pods: this.#pods,
        log: this.#log,
        stop: () => this.stop(),
      }),
    };
  }

  /** Shared mode follows the node agent; dedicated mode serves one workload in our own namespace. */
  async #startPods(): Promise<void> {
    const { proxyEnabled, proxyMode, proxyWorkload, zdsSocket } = this.#config;
    if (!proxyEnabled) return this.#readiness.done("workload proxy manager");
    if (proxyMode === "dedicated" && proxyWorkload !== undefined) {
      await this.#startDedicated(proxyWorkload);
      return this.#readiness.done("workload proxy manager");
    }
    await this.#serveSelf();
    this.#zds = new ZdsClient({
      path: zdsSocket,
      pods: this.#pods,
      clock: this.#clock,
      log: this.#log.scope("inpod"),
      onSynced: (synced) => {
        if (synced) this.#readiness.done("workload proxy manager");
        else this.#readiness.expect("workload proxy manager");
      },
      onProtocolError: () => this.#fail(new UserError("the node agent broke the ZDS protocol")),
    });
  }

  /** Our own metrics are worth less than the node's traffic: it goes on without them. */
  async #serveSelf(): Promise<void> {
    const { podName: name, podNamespace: namespace, serviceAccount } = this.#config;
    if (name === "" || namespace === "" || serviceAccount === "") return;
    try {
      await this.#workers.askAll("serveSelf", { info: { name, namespace, serviceAccount } });
    } catch (error) {
      this.#main.warn("not reached through tunnels", { error: errorMessage(error) });
    }
  }

  async #startDedicated(workload: NonNullable<Config["proxyWorkload"]>): Promise<void> {
    try {
      await this.#pods.add("dedicated", workload, { netnsFd: undefined });
    } catch (error) {
      throw new UserError(errorMessage(error));
    }
  }

  async #drain(deadlineMs: number): Promise<void> {
    const drained = this.#workers.askAll("drain", { deadlineMs });
    const outcome = await Promise.race([
      drained,
      sleep(this.#clock, deadlineMs + DRAIN_ANSWER_MS).then(() => "late" as const),
    ]);
    if (outcome === "late") this.#main.warn("a worker does not answer, stopping without it");
    this.#mesh?.close();
    this.#revocations?.close();
    this.#secrets.close();
    await Promise.all(this.#servers.map((server) => server.close()));
    await this.#workers.stop();
    this.#main.info("stopped");
  }

  #fail(error: unknown): void {
    this.#main.error("cannot go on", { error: errorMessage(error) });
    this.#end.reject(error);
  }

  #workerEvents(): WorkerEvents {
    return {
      onMessage: (message) => {
        if (message.type === "certificateWanted") this.#want(message);
        else if (message.type === "certificateUnwanted") this.#secrets.forget(message.id);
        else this.#demand(message.key).catch((error: unknown) => this.#fail(error));
      },
      onDeath: (error) => this.#fail(error),
    };
  }

  /** Tells all workers, for another may wait for the same. */
  async #demand(key: string): Promise<void> {
    const result = (await this.#mesh?.demand(key)) ?? "closed";
    if (!this.#stopping) await this.#workers.askAll("demanded", { key, result });
  }

  /** Before any pod is served, the lists are with the workers: messages keep their order. */
  #followRevocations(): RevocationFile | undefined {
    const { crlPath } = this.#config;
    if (crlPath === undefined) return undefined;
    return new RevocationFile({
      path: crlPath,
      clock: this.#clock,
      log: this.#log.scope("identity"),
      onLoaded: (file) => {
        this.#workers.askAll("revocations", { file }).catch((error: unknown) => this.#fail(error));
      },
    });
  }

  #want({ id, urgency }: Extract<WorkerMessage, { type: "certificateWanted" }>): void {
    this.#secrets.want(id, urgency === "now" ? Priority.realTime : Priority.warmup);
  }

  async #sendCertificate(id: SpiffeId, state: SecretState | undefined): Promise<void> {
    if (state?.state === "initializing") return;
    try {
      await this.#workers.askAll("certificate", {
        id,
        ...(state?.state === "available" && { certificate: state.certificate }),
        ...(state?.state === "unavailable" && { error: state.reason }),
      });
    } catch (error) {
      this.#main.error("certificate not delivered", { id, error: errorMessage(error) });
    }
  }
}

function logFor(config: Config): Log {
  return new Log({ format: config.logFormat, level: config.logLevel });
}
