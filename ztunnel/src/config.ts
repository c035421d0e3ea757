// ztunnel's configuration: Istio's environment variables, parsed once into one frozen object that is
// handed to the workers and shown by the admin port.

import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { DEFAULT_HBONE_SETTINGS, type HboneSettings } from "@ambit/common/hbone/limits.ts";
import { type Environment, EnvironmentReader } from "@ambit/common/process/config.ts";
import { parseLevelFilter } from "@ambit/common/telemetry/log.ts";
import type { Keepalive } from "@ambit/common/sys/sockets.ts";

export type SameNodePath = "local" | "hbone";

export interface Config {
  readonly proxyMode: "shared" | "dedicated";
  /** The one workload of dedicated mode. */
  readonly proxyWorkload:
    | { readonly namespace: string; readonly name: string; readonly serviceAccount: string }
    | undefined;
  readonly nodeName: string | undefined;
  readonly network: string;
  readonly clusterId: string;
  readonly clusterDomain: string;
  readonly trustDomain: string;
  readonly sameNode: SameNodePath;

  readonly xdsAddress: string | undefined;
  readonly xdsRootCa: string;
  readonly caAddress: string;
  readonly caRootCa: string;
  readonly authTokenFile: string;
  readonly fakeCa: boolean;
  readonly fakeCaFolder: string | undefined;
  readonly secretTtlSeconds: number;
  readonly localXdsPath: string | undefined;

  readonly zdsSocket: string;
  readonly packetMark: number | undefined;
  readonly originalSource: "auto" | "required" | "never";
  readonly ipv6: boolean;
  readonly portReuse: boolean;
  readonly dnsProxy: boolean;
  readonly responseBaggage: boolean;

  readonly hbone: HboneSettings;
  readonly poolStreamsPerConnectionMax: number;
  readonly poolUnusedReleaseMs: number;
  readonly keepalive: Keepalive | undefined;

  readonly adminPort: number;
  readonly metricsPort: number;
  readonly readinessPort: number;
  readonly workerThreads: number;
  readonly drainDeadlineMs: number;
  readonly logLevel: string;
  readonly logFormat: "plain" | "json";
  readonly policyInfoLogging: boolean;
  readonly instanceIp: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly version: string;
}

export const OUTBOUND_PORT = 15001;
export const INBOUND_PLAINTEXT_PORT = 15006;
export const DNS_PORT = 15053;

const DEFAULT_PACKET_MARK = 1337;
const DEFAULT_TOKEN_FILE = "./var/run/secrets/tokens/istio-token";
const DEFAULT_ROOT_FILE = "./var/run/secrets/istio/root-cert.pem";
const WINDOW = { min: 65_535, max: 2 ** 31 - 1 };
const PORT = { min: 0, max: 65_535 };

/** Parses all variables. Throws UserError with every problem found. */
export function parseConfig(env: Environment): Config {
  const read = new EnvironmentReader(env);
  const proxyMode = read.oneOf("PROXY_MODE", ["shared", "dedicated"], "shared");
  const localXdsPath = read.text("LOCAL_XDS_PATH");
  const proxyWorkload = read.parsed("PROXY_WORKLOAD_INFO", undefined, parseWorkloadInfo);
  if (proxyMode === "dedicated" && proxyWorkload === undefined) {
    read.reject("PROXY_WORKLOAD_INFO", "dedicated mode needs namespace/name/service-account");
  }
  const logLevel = read.text("RUST_LOG", "info");
  read.parsed("RUST_LOG", undefined, (value) => void parseLevelFilter(value));
  const hbone = {
    streamWindowBytes: read.integer(
      "HTTP2_STREAM_WINDOW_SIZE",
      DEFAULT_HBONE_SETTINGS.streamWindowBytes,
      WINDOW,
    ),
    connectionWindowBytes: read.integer(
      "HTTP2_CONNECTION_WINDOW_SIZE",
      DEFAULT_HBONE_SETTINGS.connectionWindowBytes,
      WINDOW,
    ),
    frameBytesMax: read.integer("HTTP2_FRAME_SIZE", DEFAULT_HBONE_SETTINGS.frameBytesMax, {
      min: 16_384,
      max: 2 ** 24 - 1,
    }),
  };
  const config: Config = {
    proxyMode,
    proxyWorkload,
    nodeName: read.text("NODE_NAME"),
    network: read.text("NETWORK", ""),
    clusterId: read.text("ISTIO_META_CLUSTER_ID") ?? read.text("CLUSTER_ID", "Kubernetes"),
    clusterDomain: read.text("CLUSTER_DOMAIN", "cluster.local"),
    trustDomain: read.text("TRUST_DOMAIN", "cluster.local"),
    sameNode: read.oneOf("SAME_NODE", ["local", "hbone"], "local"),
    xdsAddress:
      localXdsPath === undefined
        ? withScheme(read.text("XDS_ADDRESS", defaultControlPlane(env)))
        : undefined,
    xdsRootCa: read.text("XDS_ROOT_CA", DEFAULT_ROOT_FILE),
    caAddress: withScheme(read.text("CA_ADDRESS", defaultControlPlane(env))),
    caRootCa: read.text("CA_ROOT_CA", DEFAULT_ROOT_FILE),
    authTokenFile: read.text("AUTH_TOKEN", DEFAULT_TOKEN_FILE),
    fakeCa: read.flag("FAKE_CA", false),
    fakeCaFolder: read.text("FAKE_CA_FOLDER"),
    secretTtlSeconds: Math.round(read.durationMs("SECRET_TTL", 86_400_000) / 1000),
    localXdsPath,
    zdsSocket: read.text("INPOD_UDS", "/var/run/ztunnel/ztunnel.sock"),
    packetMark:
      proxyMode === "shared" || read.text("PACKET_MARK") !== undefined
        ? read.integer("PACKET_MARK", DEFAULT_PACKET_MARK, { min: 0, max: 2 ** 32 - 1 })
        : undefined,
    originalSource:
      read.text("ENABLE_ORIG_SRC") === undefined
        ? "auto"
        : read.flag("ENABLE_ORIG_SRC", true)
          ? "required"
          : "never",
    ipv6: read.flag("IPV6_ENABLED", true),
    portReuse: read.flag("INPOD_PORT_REUSE", true),
    dnsProxy: read.text("ISTIO_META_DNS_CAPTURE", "true") === "true",
    responseBaggage: read.flag("ENABLE_RESPONSE_BAGGAGE", true),
    hbone,
    poolStreamsPerConnectionMax: read.integer("POOL_MAX_STREAMS_PER_CONNECTION", 100, {
      min: 1,
      max: 65_535,
    }),
    poolUnusedReleaseMs: read.durationMs("POOL_UNUSED_RELEASE_TIMEOUT", 300_000),
    keepalive: parseKeepalive(read),
    adminPort: read.integer("ADMIN_PORT", 15_000, PORT),
    metricsPort: read.integer("STATS_PORT", 15_020, PORT),
    readinessPort: read.integer("READINESS_PORT", 15_021, PORT),
    workerThreads: parseWorkerThreads(read),
    drainDeadlineMs: parseDrainDeadlineMs(read),
    logLevel,
    logFormat: read.oneOf("LOG_FORMAT", ["plain", "json"], "plain"),
    policyInfoLogging: read.flag("AUTHZ_POLICY_INFO_LOGGING", false),
    instanceIp: read.text("INSTANCE_IP", "1.1.1.1"),
    podName: read.text("POD_NAME", ""),
    podNamespace: read.text("POD_NAMESPACE", ""),
    version: packageVersion(),
  };
  read.finish();
  return Object.freeze(config);
}

function defaultControlPlane(env: Environment): string {
  return env["KUBERNETES_SERVICE_HOST"] === undefined
    ? "https://localhost:15012"
    : "https://istiod.istio-system.svc:15012";
}

function withScheme(address: string): string {
  return address.includes("://") ? address : `https://${address}`;
}

function parseWorkloadInfo(text: string): Config["proxyWorkload"] {
  const [namespace, name, serviceAccount, ...rest] = text.split("/");
  if (!namespace || !name || !serviceAccount || rest.length > 0) {
    throw new Error(`"${text}" is not namespace/name/service-account`);
  }
  return { namespace, name, serviceAccount };
}

function parseKeepalive(read: EnvironmentReader): Keepalive | undefined {
  const keepalive = {
    timeSeconds: read.durationMs("KEEPALIVE_TIME", 180_000) / 1000,
    intervalSeconds: read.durationMs("KEEPALIVE_INTERVAL", 180_000) / 1000,
    retries: read.integer("KEEPALIVE_RETRIES", 9, { min: 1, max: 127 }),
    userTimeout: read.flag("USER_TIMEOUT_ENABLED", false),
  };
  return read.flag("KEEPALIVE_ENABLED", true) ? keepalive : undefined;
}

/** A number, a percentage of the CPUs, or 0 for all; by default a quarter of the CPUs, at least 1. */
function parseWorkerThreads(read: EnvironmentReader): number {
  const cpus = availableParallelism();
  return read.parsed("ZTUNNEL_WORKER_THREADS", Math.max(1, Math.floor(cpus / 4)), (text) => {
    const match = /^(\d+)(%?)$/.exec(text);
    if (match === null) throw new Error(`"${text}" is not a number or a percentage`);
    const amount = Number(match[1]);
    if (match[2] === "%") return Math.max(1, Math.round((cpus * amount) / 100));
    return amount === 0 ? cpus : Math.min(amount, 256);
  });
}

/** CONNECTION_TERMINATION_DEADLINE, else a little less than the pod's grace period (ztunnel §7.5). */
function parseDrainDeadlineMs(read: EnvironmentReader): number {
  const graceSeconds = read.integer("TERMINATION_GRACE_PERIOD_SECONDS", 0, { min: 0, max: 86_400 });
  const fallback =
    graceSeconds === 0 ? 5 : graceSeconds > 10 ? graceSeconds - 5 : Math.max(1, graceSeconds - 1);
  return read.durationMs("CONNECTION_TERMINATION_DEADLINE", fallback * 1000);
}

function packageVersion(): string {
  const manifest = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}
