// The inside of istiod-lite, everything that has no port: how events become resources, what is told to their
// authors, and who gets certificates.

import { X509Certificate } from "node:crypto";
import type { Clock } from "@ambit/common/process/clock.ts";
import { FolderStore } from "@ambit/common/resources/folder-store.ts";
import type { Log } from "@ambit/common/telemetry/log.ts";
import { DeltaServer } from "@ambit/common/xds/delta-server.ts";
import { ResourceStore } from "@ambit/common/xds/resource-store.ts";
import { ZTUNNEL_TYPES } from "@ambit/common/xds/resource-type.ts";
import type { CertificateAuthority } from "./ca/authority.ts";
import { certificateService } from "./ca/certificate-service.ts";
import { NodeAuthorizer } from "./ca/node-authorizer.ts";
import type { Config } from "./config.ts";
import { MeshConfigWatch } from "./mesh-config/mesh-config-watch.ts";
import { IstiodMetrics } from "./metrics.ts";
import { MeshModel } from "./model/mesh-model.ts";
import { EventPipeline } from "./push/event-pipeline.ts";
import { MeshPusher } from "./push/mesh-pusher.ts";
import { PodDirectory } from "./push/pod-directory.ts";
import { AppliedTracker } from "./status/applied.ts";
import { StatusWriter } from "./status/status-writer.ts";
import { createTokenAuthenticator, createTrust } from "./trust.ts";
import { VipAllocator } from "./vips/vip-allocator.ts";
import { VipPool } from "./vips/vip-pool.ts";

export interface Surroundings {
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

export type Core = ReturnType<typeof buildCore>;

export function buildCore(config: Config, around: Surroundings) {
  const { clock, log } = around;
  const metrics = new IstiodMetrics(config.version);
  const trust = createTrust(config, { ...around, log: log.scope("ca") });
  const { authority } = trust;
  const tokens = createTokenAuthenticator(config, clock);
  const pods = new PodDirectory();
  const serving = buildServing(config, around, metrics);
  const intake = buildIntake(config, around, serving.pusher, pods);
  const certificates = certificateService({
    authority,
    authenticator: tokens,
    nodes: new NodeAuthorizer(config.trustedNodeAccounts, pods),
    trustDomain: () => intake.events.trustDomain,
    log: log.scope("ca"),
    observer: metrics.certificates,
  });
  watchRoot(metrics, authority, clock);
  return { metrics, trust, authority, tokens, certificates, ...serving, ...intake };
}

/** From events of the mesh to proxies, and back to the authors. */
function buildServing(config: Config, around: Surroundings, metrics: IstiodMetrics) {
  const { clock, random, log } = around;
  const store = new ResourceStore(ZTUNNEL_TYPES);
  const model = new MeshModel(config);
  const { statusFolder } = config;
  const writer = statusFolder === undefined ? undefined : new FolderStore(statusFolder);
  const statuses = new StatusWriter({ writer, clock, log: log.scope("status") });
  const delta = new DeltaServer({
    store,
    clock,
    random,
    log: log.scope("xds"),
    observer: metrics,
    onProgress: () => applied.touch(),
    pushesPerTurn: config.pushesPerTurn,
    streamAgeMs: config.streamAgeMs,
  });
  const applied = new AppliedTracker({
    clock,
    epoch: () => store.epoch,
    acknowledgement: (epoch) => delta.acknowledgement("ztunnel", epoch),
    onDecided: (key, condition) => statuses.decide(key, condition),
  });
  const pusher = new MeshPusher({
    model,
    statuses,
    applied,
    sink: store,
    clock,
    log: log.scope("push"),
    debounceAfterMs: config.debounceAfterMs,
    debounceMaxMs: config.debounceMaxMs,
    observer: metrics,
  });
  metrics.watch("pilot_services", "Total services known to pilot.", () => model.serviceCount);
  return { store, statuses, delta, applied, pusher };
}

/** From the source to events of the mesh. */
function buildIntake(config: Config, around: Surroundings, pusher: MeshPusher, pods: PodDirectory) {
  const { clock, log } = around;
  const pools = config.vipBlocks.map((block) => new VipPool(block));
  const vips = new VipAllocator(pools, log.scope("vips"));
  const events = new EventPipeline({ settings: config, pods, vips, pusher });
  const meshConfig = new MeshConfigWatch({
    folder: config.meshConfigFolder,
    namespace: config.rootNamespace,
    name: config.meshConfigName,
    clock,
    onChange: (changed) => events.configure(changed),
    onProblems: (problems) => events.onConfigProblems(problems),
  });
  events.configuredBy(meshConfig);
  return { events, meshConfig };
}

function watchRoot(metrics: IstiodMetrics, authority: CertificateAuthority, clock: Clock): void {
  const endsMs = () =>
    Math.min(
      ...authority.signingCa.rootsPem.map((pem) => new X509Certificate(pem).validToDate.getTime()),
    );
  metrics.watch(
    "citadel_server_root_cert_expiry_timestamp",
    "The unix timestamp, in seconds, when Citadel root cert will expire.",
    () => endsMs() / 1000,
  );
  metrics.watch(
    "citadel_server_root_cert_expiry_seconds",
    "The time remaining, in seconds, before the root cert will expire.",
    () => (endsMs() - clock.nowMs()) / 1000,
  );
}
