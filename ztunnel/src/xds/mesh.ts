// Where the workers' knowledge of the mesh comes from: the control plane's delta xDS, or a local file.

import type { Logger } from "@ambit/common/telemetry/log.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { tlsOptions } from "@ambit/common/tls/tls-policy.ts";
import { callMetadata, channelTarget } from "@ambit/common/xds/control-plane.ts";
import { DeltaClient } from "@ambit/common/xds/delta-client.ts";
import type {
  DemandResult,
  NodeIdentity,
  Rejection,
  TypeSubscription,
  TypeUpdate,
} from "@ambit/common/xds/delta-types.ts";
import { TYPE_ADDRESS, TYPE_AUTHORIZATION } from "@ambit/common/xds/resource-type.ts";
import type { Config } from "../config.ts";
import type { MainMetrics } from "../metrics.ts";
import type { Workers } from "../worker/host.ts";
import type { XdsKind } from "../worker/protocol.ts";
import type { ResourceUpsert } from "../state/mesh-state.ts";
import { UserError } from "@ambit/common/process/errors.ts";

export interface Mesh {
  /** Resolves when the workers have the whole state for the first time. */
  readonly synced: Promise<void>;
  /** On-demand xDS: asks for an address and waits for the answer, which the workers then have. */
  demand(key: string): Promise<DemandResult>;
  close(): void;
}

/** `synced` rejects with a UserError when a local file cannot be used. */
export function startMesh(
  config: Config,
  workers: Workers,
  log: Logger,
  metrics: MainMetrics,
): Mesh {
  return config.xdsAddress !== undefined
    ? followControlPlane(config, workers, log, metrics)
    : {
        synced: loadLocalMesh(config, workers, log),
        // A file is the whole mesh: what is not in it does not exist.
        demand: () => Promise.resolve("absent"),
        close: () => undefined,
      };
}

function followControlPlane(
  config: Config,
  workers: Workers,
  log: Logger,
  metrics: MainMetrics,
): Mesh {
  const synced = Promise.withResolvers<void>();
  const controlPlane = {
    address: config.xdsAddress ?? "",
    rootCa: config.xdsRootCa,
    token: config.authTokenFile,
    clusterId: config.clusterId,
    alternativeHostname: config.xdsAlternativeHostname,
    headers: config.xdsHeaders,
    tls: tlsOptions(config.tls),
  };
  const type = (typeUrl: string, kind: XdsKind, mode: TypeSubscription["mode"]) => ({
    typeUrl,
    mode,
    onUpdate: (update: TypeUpdate) => applyEverywhere(workers, kind, update),
  });
  const client = new DeltaClient({
    target: async () => channelTarget(controlPlane),
    metadata: async () => callMetadata(controlPlane),
    node: nodeOf(config),
    types: [
      type(TYPE_ADDRESS, "address", config.xdsOnDemand ? "on-demand" : "wildcard"),
      type(TYPE_AUTHORIZATION, "authorization", "wildcard"),
    ],
    clock: systemClock,
    log,
    onSynced: () => synced.resolve(),
    onMessage: (url, bytes) => {
      metrics.xdsMessages.inc({ url });
      metrics.xdsBytes.inc({ url }, bytes);
    },
    onTermination: (reason) => metrics.xdsTerminations.inc({ reason }),
  });
  return {
    synced: synced.promise,
    demand: (key) => client.demand(TYPE_ADDRESS, key),
    close: () => client.close(),
  };
}

/** Every worker applies the same bytes, so the first one's verdict stands for all. */
async function applyEverywhere(
  workers: Workers,
  kind: XdsKind,
  update: TypeUpdate,
): Promise<readonly Rejection[]> {
  const plain = {
    upserts: update.upserts.map(({ name, value }) => ({ name, value })),
    removed: update.removed,
  };
  const [rejections] = await workers.askAll("xds", { kind, update: plain });
  return rejections ?? [];
}

async function loadLocalMesh(config: Config, workers: Workers, log: Logger): Promise<void> {
  // With the YAML parser and the schemas; who follows a control plane needs none of them.
  const { readLocalMesh } = await import("./local-file.ts");
  const { addresses, authorizations } = readLocalMesh(config);
  const apply = async (kind: XdsKind, upserts: readonly ResourceUpsert[]) =>
    (await workers.askAll("xds", { kind, update: { upserts, removed: [] } }))[0] ?? [];
  const rejected = [
    ...(await apply("authorization", authorizations)),
    ...(await apply("address", addresses)),
  ];
  if (rejected.length > 0) {
    const list = rejected.map(({ name, reason }) => `${name}: ${reason}`).join("; ");
    throw new UserError(`the local mesh has resources that cannot be used: ${list}`);
  }
  log.info("mesh loaded from file", {
    addresses: addresses.length,
    policies: authorizations.length,
  });
}

/** How Istio's control plane expects a ztunnel to name itself (ztunnel §6.1). */
function nodeOf(config: Config): NodeIdentity {
  const { instanceIp, podName, podNamespace, nodeName } = config;
  return {
    id: `ztunnel~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    metadata: {
      ISTIO_VERSION: config.version,
      ...config.nodeMetadata,
      NAME: podName,
      NAMESPACE: podNamespace,
      INSTANCE_IPS: instanceIp,
      NODE_NAME: nodeName ?? "",
      CLUSTER_ID: config.clusterId,
    },
  };
}
