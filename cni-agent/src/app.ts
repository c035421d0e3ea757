// Wires the agent: resources in, pods' namespaces and ztunnel out, and the servers around it. Starts in
// Istio's order: model, taking over, ZDS, events, ready. Stopping leaves the rules: the mesh goes on.

import { systemClock } from "@ambit/common/process/clock.ts";
import { type HttpServer, startHttpServer, textReply } from "@ambit/common/process/http-server.ts";
import { Readiness } from "@ambit/common/process/readiness.ts";
import { FolderSource } from "@ambit/common/resources/folder-source.ts";
import { FolderStore } from "@ambit/common/resources/folder-store.ts";
import { formatProblem } from "@ambit/common/resources/source.ts";
import { requireCapabilities } from "@ambit/common/sys/capabilities.ts";
import { openNetns } from "@ambit/common/sys/netns.ts";
import { metricsReply } from "@ambit/common/telemetry/exposition.ts";
import { Log } from "@ambit/common/telemetry/log.ts";
import type { Config } from "./config.ts";
import { ResourceAnnotator } from "./mesh/annotator.ts";
import { ProbeProver } from "./mesh/capture-proof.ts";
import { NodeModel } from "./mesh/node-model.ts";
import { PodRepair } from "./mesh/pod-repair.ts";
import { PodMesh } from "./mesh/pod-mesh.ts";
import { ProbeExemption } from "./mesh/probe-exemption.ts";
import { RedirectionReporter } from "./mesh/redirection-reporter.ts";
import { Reconciler } from "./mesh/reconciler.ts";
import { ShortcutUpkeep } from "./mesh/shortcut-upkeep.ts";
import { type AgentMetrics, agentMetrics } from "./metrics.ts";
import { AnnotationFinder } from "./netns/annotation-finder.ts";
import { firstOf } from "./netns/finder.ts";
import { ProcessFinder } from "./netns/process-finder.ts";
import { RedirectionChoice } from "./rules/redirection-choice.ts";
import { ZdsServer } from "./zds/server.ts";

export interface App {
  readonly metricsPort: number;
  readonly healthPort: number;
  /** Resolves when every pod is as it should be, or due to be tried again. */
  whenIdle(): Promise<void>;
  stop(): Promise<void>;
}

/** Builds and starts everything; rejects with a UserError when the environment does not allow it. */
export async function buildApp(config: Config, log = newLog(config)): Promise<App> {
  requireCapabilities("cni-agent", ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
  const hostNetns = config.hostNetnsPath ? openNetns(config.hostNetnsPath) : undefined;
  const choice = await RedirectionChoice.make({
    ...config,
    mode: config.redirection,
    hostNetns,
  });
  const core = buildCore(config, log, choice);
  const readiness = new Readiness();
  readiness.expect("resources", "pods taken over");
  const servers = await startServers(config, core.metrics, readiness);

  const source = new FolderSource(config.manifestFolders);
  await source.start({
    onEvents: (events) => core.reconciler.onEvents(events),
    onProblems: (problems) => {
      for (const problem of problems) log.scope("manifests").warn(formatProblem(problem));
    },
  });
  readiness.done("resources");
  await core.reconciler.takeOver(config.reconcileRulesAtStart);
  core.listen();
  core.reconciler.start();
  readiness.done("pods taken over");
  log.scope("cni").info("started", { node: config.nodeName });

  return {
    metricsPort: servers[0]!.port,
    healthPort: servers[1]!.port,
    whenIdle: () => core.reconciler.whenIdle(),
    stop: async () => {
      source.close();
      await core.stop();
      choice[Symbol.dispose]();
      hostNetns?.close();
      await Promise.all(servers.map((server) => server.close()));
    },
  };
}

interface Core {
  readonly reconciler: Reconciler;
  readonly metrics: AgentMetrics;
  /** Opens the ZDS socket: from now on ztunnels get snapshots. */
  listen(): void;
  stop(): Promise<void>;
}

function buildCore(config: Config, log: Log, choice: RedirectionChoice): Core {
  const { backend } = choice;
  const store = new FolderStore(config.manifestFolders[0]!);
  const reporter = reportRedirection(config, log, choice, store);
  const annotator = new ResourceAnnotator(store);
  const probes = new ProbeExemption(backend);
  const model = new NodeModel(config.nodeName);
  let zds: ZdsServer | undefined;
  const mesh = new PodMesh({
    backend,
    finder: firstOf(new AnnotationFinder(), new ProcessFinder(config.procFolder)),
    probes,
    annotator,
    prover: new ProbeProver(() => zds?.answersProbes ?? false),
    ztunnel: { add: (uid) => zds!.add(uid), remove: (uid) => zds!.remove(uid) },
    defaults: { dnsCapture: config.dnsCapture, ipv6: config.ipv6 },
    clock: systemClock,
    drainMs: config.unenrolmentDrainMs,
    log: log.scope("pods"),
    onRulesTouched: (key) => reconciler.onRulesTouched(key),
    onRepaired: () => metrics.repairs.inc(),
  });
  const metrics = buildMetrics(choice, mesh, () => zds?.connected ?? 0);
  const repair = new PodRepair({
    options: config.repair,
    editor: annotator,
    clock: systemClock,
    log: log.scope("repair"),
    nodeWorks: () => (zds?.connected ?? 0) > 0 && mesh.provenCount > 0,
    onRepaired: (result) => metrics.podRepairs.inc(result),
  });
  const reconciler = new Reconciler({
    repair,
    model,
    mesh,
    probes,
    enrolment: config,
    clock: systemClock,
    log: log.scope("pods"),
    metrics,
    auditIntervalMs: config.auditIntervalMs,
    onAudit: () => choice.lookOver(),
  });
  choice.onProbesChanged(() => {
    reporter.report(choice);
    reconciler.onProbesChanged();
  });
  const listen = () => {
    zds = new ZdsServer({
      path: config.zdsPath,
      directory: mesh,
      clock: systemClock,
      log: log.scope("zds"),
      onNewest: (ztunnel) => {
        if (choice.onZtunnel(ztunnel)) reconciler.onRedirectionChanged();
        reporter.report(choice);
      },
      onSynced: () => reconciler.onZtunnel(),
      onRejected: (uid, error) => reconciler.onRejected(uid, error),
    });
  };
  const shortcuts = keepShortcuts(mesh, choice, log);
  const stop = async () => {
    await shortcuts.close();
    zds?.close();
    await reconciler.close();
    mesh.close();
  };
  return { reconciler, metrics, listen, stop };
}

function keepShortcuts(mesh: PodMesh, { backend }: RedirectionChoice, log: Log): ShortcutUpkeep {
  return new ShortcutUpkeep({
    backend,
    pods: () => mesh.namespaces(),
    clock: systemClock,
    log: log.scope("redirection"),
  });
}

function buildMetrics(choice: RedirectionChoice, mesh: PodMesh, ztunnels: () => number) {
  return agentMetrics({
    ztunnels,
    pods: () => mesh.size,
    provenPods: () => mesh.provenCount,
    redirection: () => choice.current,
    probes: () => choice.probes,
    bpfEvents: () => choice.counters(),
    shortcuts: () => choice.shortcuts(),
  });
}

function reportRedirection(
  config: Config,
  log: Log,
  choice: RedirectionChoice,
  store: FolderStore,
) {
  const reporter = new RedirectionReporter({
    writer: store,
    nodeName: config.nodeName,
    log: log.scope("redirection"),
  });
  reporter.report(choice);
  return reporter;
}

/** Metrics first, health second. */
async function startServers(
  config: Config,
  metrics: AgentMetrics,
  readiness: Readiness,
): Promise<HttpServer[]> {
  const host = config.bindAddress;
  return [
    await startHttpServer({
      host,
      port: config.metricsPort,
      routes: {
        "GET /metrics": async (request) => metricsReply(await metrics.registry.families(), request),
      },
    }),
    await startHttpServer({
      host,
      port: config.healthPort,
      routes: { ...readiness.routes("/readyz"), "GET /healthz": () => textReply("ok\n") },
    }),
  ];
}

function newLog(config: Config): Log {
  return new Log({ format: config.logFormat, level: config.logLevel });
}
