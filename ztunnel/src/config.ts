// ztunnel's configuration: Istio's environment variables, parsed once into one frozen object that is
// handed to the workers and shown by the admin port.

import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { DEFAULT_HBONE_SETTINGS, type HboneSettings } from "@ambit/common/hbone/limits.ts";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { type Environment, EnvironmentReader } from "@ambit/common/process/config.ts";
import { parseLevelFilter } from "@ambit/common/telemetry/log.ts";
import { DEFAULT_BPF_FS } from "@ambit/common/sys/bpffs.ts";
import { COMPLIANCE_POLICIES, type TlsSettings } from "@ambit/common/tls/tls-policy.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { parseSocketAddress } from "@ambit/common/net/socket-address.ts";
import type { Keepalive } from "@ambit/common/sys/sockets.ts";
import { MESH_CONFIG_FILE, prefixed, withMeshDefaults } from "./mesh-config.ts";

export type SameNodePath = "local" | "hbone" | "direct";

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
  /** Also accepted as the control plane's name. */
  readonly xdsAlternativeHostname: string | undefined;
  /** Only what connections need is asked of the control plane, when they need it. */
  readonly xdsOnDemand: boolean;
  readonly xdsHeaders: Readonly<Record<string, string>>;
  readonly caAddress: string;
  readonly caRootCa: string;
  readonly caAlternativeHostname: string | undefined;
  readonly caHeaders: Readonly<Record<string, string>>;
  /** A file, or the token itself: never shown. */
  readonly authTokenFile: string;
  readonly fakeCa: boolean;
  readonly fakeCaFolder: string | undefined;
  readonly secretTtlSeconds: number;
  readonly tls: TlsSettings;
  /** The file of revocation lists to follow. */
  readonly crlPath: string | undefined;
  readonly localXdsPath: string | undefined;
  /** The same file's content, given inline. */
  readonly localXds: string | undefined;

  readonly proxyEnabled: boolean;
  readonly zdsSocket: string;
  /** Where the node agent pins the maps by which it steers connections to us. */
  readonly bpfFs: string;
  readonly packetMark: number | undefined;
  readonly originalSource: "auto" | "required" | "never";
  readonly ipv6: boolean;
  readonly portReuse: boolean;
  readonly dnsProxy: boolean;
  /** Applications may also say by SOCKS5 where they want to go. */
  readonly socks: boolean;
  /** Where a pod's DNS proxy listens; on all of its loopback addresses without an `ip`. */
  readonly dnsProxyAddress: { readonly ip?: Ip; readonly port: number };
  /** Whose service a name means when several namespaces have it, after the client's and a canonical one. */
  readonly preferredServiceNamespace: string | undefined;
  /** Baggage is told in answers, and believed of sources that xDS does not know. */
  readonly responseBaggage: boolean;
  /** Applications behind a PROXY header listen on loopback. */
  readonly localhostAppTunnel: boolean;

  readonly hbone: HboneSettings;
  readonly poolStreamsPerConnectionMax: number;
  readonly poolUnusedReleaseMs: number;
  readonly keepalive: Keepalive | undefined;

  readonly adminPort: number;
  readonly metricsPort: number;
  readonly readinessPort: number;
  readonly workerThreads: number;
  /** One pod's connections at a time, as client and as server, all workers together. */
  readonly podOutboundMax: number;
  readonly podInboundMax: number;
  readonly drainDeadlineMs: number;
  readonly logLevel: string;
  readonly logFormat: "plain" | "json";
  readonly policyInfoLogging: boolean;
  readonly instanceIp: string;
  readonly podName: string;
  readonly podNamespace: string;
  /** With the pod's name: ztunnel itself is reached through tunnels, too. */
  readonly serviceAccount: string;
  /** What the control plane is told of us besides (ISTIO_META_*, ISTIO_METAJSON_*). */
  readonly nodeMetadata: JsonObject;
  readonly version: string;
}

export const OUTBOUND_PORT = 15001;
export const INBOUND_PLAINTEXT_PORT = 15006;
export const DNS_PORT = 15053;
export const SOCKS_PORT = 15080;

const DEFAULT_PACKET_MARK = 1337;
const DEFAULT_TOKEN_FILE = "./var/run/secrets/tokens/istio-token";
const DEFAULT_ROOT_FILE = "./var/run/secrets/istio/root-cert.pem";
const WINDOW = { min: 65_535, max: 2 ** 31 - 1 };
const PORT = { min: 0, max: 65_535 };

/** Parses all variables and the mesh configuration. Throws UserError with every problem found. */
export function parseConfig(processEnv: Environment, meshFile = MESH_CONFIG_FILE): Config {
  const problems: [string, string][] = [];
  const env = withMeshDefaults(processEnv, meshFile, (...found) => problems.push(found));
  const read = new EnvironmentReader(env);
  for (const [source, message] of problems) read.reject(source, message);
  const config: Config = {
    ...readPlace(read),
    ...readMeshSource(read, env),
    ...readPods(read),
    ...readTunnels(read),
    ...readServers(read),
    ...readLogging(read),
    instanceIp: read.text("INSTANCE_IP", "1.1.1.1"),
    podName: read.text("POD_NAME", ""),
    podNamespace: read.text("POD_NAMESPACE", ""),
    serviceAccount: read.text("SERVICE_ACCOUNT", ""),
    nodeMetadata: parseNodeMetadata(read, env),
    version: packageVersion(),
  };
  if (config.xdsOnDemand && config.dnsProxy) {
    const why = "a DNS proxy must know all names: set ISTIO_META_DNS_CAPTURE=false";
    read.reject("XDS_ON_DEMAND", why);
  }
  read.finish();
  return Object.freeze(config);
}

/** Where in the mesh we are, and what we serve. */
function readPlace(read: EnvironmentReader) {
  const proxyMode = read.oneOf("PROXY_MODE", ["shared", "dedicated"], "shared");
  const proxyWorkload = read.parsed("PROXY_WORKLOAD_INFO", undefined, parseWorkloadInfo);
  if (proxyMode === "dedicated" && proxyWorkload === undefined) {
    read.reject("PROXY_WORKLOAD_INFO", "dedicated mode needs namespace/name/service-account");
  }
  return {
    proxyMode,
    proxyWorkload,
    nodeName: read.text("NODE_NAME"),
    network: read.text("NETWORK", ""),
    clusterId: read.text("ISTIO_META_CLUSTER_ID") ?? read.text("CLUSTER_ID", "Kubernetes"),
    clusterDomain: read.text("CLUSTER_DOMAIN", "cluster.local"),
    trustDomain: read.text("TRUST_DOMAIN", "cluster.local"),
    sameNode: read.oneOf("SAME_NODE", ["local", "hbone", "direct"], "local"),
    packetMark:
      proxyMode === "shared" || read.text("PACKET_MARK") !== undefined
        ? read.integer("PACKET_MARK", DEFAULT_PACKET_MARK, { min: 0, max: 2 ** 32 - 1 })
        : undefined,
  };
}

/** The control plane, or the file that stands in for it. */
function readMeshSource(read: EnvironmentReader, env: Environment) {
  const localXdsPath = read.text("LOCAL_XDS_PATH");
  const localXds = read.text("LOCAL_XDS");
  if (localXdsPath !== undefined && localXds !== undefined) {
    read.reject("LOCAL_XDS", "set either LOCAL_XDS or LOCAL_XDS_PATH, not both");
  }
  const isLocal = localXdsPath !== undefined || localXds !== undefined;
  return {
    localXdsPath,
    localXds,
    xdsAddress: isLocal
      ? undefined
      : withScheme(read.text("XDS_ADDRESS", defaultControlPlane(env))),
    xdsRootCa: read.text("XDS_ROOT_CA", DEFAULT_ROOT_FILE),
    xdsAlternativeHostname: read.text("ALT_XDS_HOSTNAME"),
    xdsOnDemand: read.flag("XDS_ON_DEMAND", false),
    xdsHeaders: prefixed(env, "XDS_HEADER_"),
    caAddress: withScheme(read.text("CA_ADDRESS", defaultControlPlane(env))),
    caRootCa: read.text("CA_ROOT_CA", DEFAULT_ROOT_FILE),
    caAlternativeHostname: read.text("ALT_CA_HOSTNAME"),
    caHeaders: prefixed(env, "CA_HEADER_"),
    authTokenFile: read.text("AUTH_TOKEN", DEFAULT_TOKEN_FILE),
    fakeCa: read.flag("FAKE_CA", false),
    fakeCaFolder: read.text("FAKE_CA_FOLDER"),
    tls: readTls(read),
    crlPath: read.text("CRL_PATH"),
    secretTtlSeconds: Math.round(read.durationMs("SECRET_TTL", 86_400_000) / 1000),
  };
}

function readTls(read: EnvironmentReader): TlsSettings {
  return {
    tls12: read.flag("TLS12_ENABLED", false),
    compliance: read.oneOf("COMPLIANCE_POLICY", COMPLIANCE_POLICIES, "none"),
  };
}

function readPods(read: EnvironmentReader) {
  const portReuse = read.flag("INPOD_PORT_REUSE", true);
  const spoof = read.flag("ENABLE_ORIG_SRC", true) ? "required" : "never";
  return {
    portReuse,
    workerThreads: parseWorkerThreads(read, portReuse),
    podOutboundMax: read.integer("POD_OUTBOUND_CONNECTIONS_MAX", POD_OUTBOUND_MAX, POD_BOUND),
    podInboundMax: read.integer("POD_INBOUND_CONNECTIONS_MAX", POD_INBOUND_MAX, POD_BOUND),
    proxyEnabled: read.flag("ENABLE_PROXY", true),
    zdsSocket: read.text("INPOD_UDS", "/var/run/ztunnel/ztunnel.sock"),
    originalSource: read.text("ENABLE_ORIG_SRC") === undefined ? "auto" : spoof,
    bpfFs: read.text("BPF_FS", DEFAULT_BPF_FS),
    ipv6: read.flag("IPV6_ENABLED", true),
    socks: read.flag("UNSTABLE_ENABLE_SOCKS5", false),
    dnsProxy: read.text("ISTIO_META_DNS_CAPTURE", "true").toLowerCase() === "true",
    dnsProxyAddress: read.parsed("ISTIO_META_DNS_PROXY_ADDR", { port: DNS_PORT }, parseDnsAddress),
    // Istio spells it so.
    preferredServiceNamespace: read.text("PREFERED_SERVICE_NAMESPACE"),
  } as const;
}

function readTunnels(read: EnvironmentReader) {
  const { streamWindowBytes, connectionWindowBytes, frameBytesMax } = DEFAULT_HBONE_SETTINGS;
  const frame = { min: 16_384, max: 2 ** 24 - 1 };
  const streams = { min: 1, max: 65_535 };
  return {
    hbone: {
      streamWindowBytes: read.integer("HTTP2_STREAM_WINDOW_SIZE", streamWindowBytes, WINDOW),
      connectionWindowBytes: read.integer(
        "HTTP2_CONNECTION_WINDOW_SIZE",
        connectionWindowBytes,
        WINDOW,
      ),
      frameBytesMax: read.integer("HTTP2_FRAME_SIZE", frameBytesMax, frame),
    },
    poolStreamsPerConnectionMax: read.integer("POOL_MAX_STREAMS_PER_CONNECTION", 100, streams),
    poolUnusedReleaseMs: read.durationMs("POOL_UNUSED_RELEASE_TIMEOUT", 300_000),
    keepalive: parseKeepalive(read),
    responseBaggage: read.flag("ENABLE_RESPONSE_BAGGAGE", true),
    localhostAppTunnel: read.flag("LOCALHOST_APP_TUNNEL", true),
  };
}

function readServers(read: EnvironmentReader) {
  return {
    adminPort: read.integer("ADMIN_PORT", 15_000, PORT),
    metricsPort: read.integer("STATS_PORT", 15_020, PORT),
    readinessPort: read.integer("READINESS_PORT", 15_021, PORT),
    drainDeadlineMs: parseDrainDeadlineMs(read),
  };
}

function readLogging(read: EnvironmentReader) {
  read.parsed("RUST_LOG", undefined, (value) => void parseLevelFilter(value));
  return {
    logLevel: read.text("RUST_LOG", "info"),
    logFormat: read.oneOf("LOG_FORMAT", ["plain", "json"], "plain"),
    policyInfoLogging: read.flag("AUTHZ_POLICY_INFO_LOGGING", false),
  };
}

function defaultControlPlane(env: Environment): string {
  return env["KUBERNETES_SERVICE_HOST"] === undefined
    ? "https://localhost:15012"
    : "https://istiod.istio-system.svc:15012";
}

function withScheme(address: string): string {
  return address.includes("://") ? address : `https://${address}`;
}

/** `localhost:port`, or an address with a port. */
function parseDnsAddress(text: string): Config["dnsProxyAddress"] {
  const address = parseSocketAddress(text.replace(/^localhost:/, "127.0.0.1:"));
  if (address === undefined) throw new Error(`"${text}" is not an address like 127.0.0.1:15053`);
  return text.startsWith("localhost:") ? { port: address.port } : address;
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

/** Istio's own: a proxy for a node is worth a quarter of it. */
const DEFAULT_CPU_SHARE = 0.25;
const WORKER_THREADS_MAX = 256;

/** Half of the ports that a pod has for its connections to one destination: busy, not yet at a loss. */
const POD_OUTBOUND_MAX = 16_384;
/** Four clients at their bound: no single one can take all of a server. */
const POD_INBOUND_MAX = 65_536;
/** As many descriptors as a process may usually have. */
const POD_BOUND = { min: 1, max: 1_048_576 };

/**
 * ZTUNNEL_WORKER_THREADS: a number, a percentage of the CPUs, or 0 for all. By default the CPU limit,
 * else the larger of a quarter of the CPUs and the CPU request; at least 1.
 */
function parseWorkerThreads(read: EnvironmentReader, portReuse: boolean): number {
  const cpus = availableParallelism();
  const range = { min: 0, max: 65_536 };
  const limit =
    read.integer("ZTUNNEL_CPU_LIMIT", 0, range) ||
    read.integer("ZTUNNEL_RESOURCE_CPU_LIMIT", 0, range);
  const request = read.integer("ZTUNNEL_RESOURCE_CPU_REQUEST", 0, range);
  const share = limit > 0 ? limit : Math.floor(cpus * DEFAULT_CPU_SHARE);
  const fallback = Math.min(WORKER_THREADS_MAX, Math.max(1, share, request));
  const threads = read.parsed("ZTUNNEL_WORKER_THREADS", portReuse ? fallback : 1, (text) =>
    threadsFrom(text, cpus),
  );
  if (!portReuse && threads > 1) {
    read.reject("ZTUNNEL_WORKER_THREADS", "several workers share ports: set INPOD_PORT_REUSE=true");
  }
  return threads;
}

function threadsFrom(text: string, cpus: number): number {
  const match = /^(\d+)(%?)$/.exec(text);
  if (match === null) throw new Error(`"${text}" is not a number or a percentage`);
  const amount = Number(match[1]);
  if (match[2] === "%") return Math.max(1, Math.round((cpus * Math.min(amount, 100)) / 100));
  return amount === 0 ? cpus : Math.min(amount, WORKER_THREADS_MAX);
}

/** ISTIO_META_<name> as text, ISTIO_METAJSON_<name> as JSON. */
function parseNodeMetadata(read: EnvironmentReader, env: Environment): JsonObject {
  const metadata: JsonObject = { ...prefixed(env, "ISTIO_META_") };
  for (const name of Object.keys(prefixed(env, "ISTIO_METAJSON_"))) {
    const value = read.parsed<JsonValue>(`ISTIO_METAJSON_${name}`, null, (text) =>
      JSON.parse(text),
    );
    metadata[name] = value;
  }
  return metadata;
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
