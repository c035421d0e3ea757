// istiod-lite's configuration: Istio's environment variables where Istio has one, parsed once.

import { type Environment, EnvironmentReader } from "@ambit/common/process/config.ts";
import { type Cidr, parseCidr } from "@ambit/common/net/cidr.ts";
import { ipToBytes } from "@ambit/common/net/ip.ts";
import { parseLevelFilter } from "@ambit/common/telemetry/log.ts";
import { PUSHES_PER_TURN, STREAM_AGE_MS_MAX } from "@ambit/common/xds/limits.ts";
import { LIFETIME_RULES, type LifetimeRules } from "./ca/authority.ts";

export interface Config {
  /** Files and folders of manifests. */
  readonly manifests: readonly string[];
  /** The store among them whose objects get a status; undefined: none is written. */
  readonly statusFolder: string | undefined;
  /** Where the mesh configuration lies as files, the way its ConfigMap is mounted. */
  readonly meshConfigFolder: string | undefined;
  /** Its ConfigMap's name, in the root namespace. */
  readonly meshConfigName: string;
  readonly clusterId: string;
  readonly clusterDomain: string;
  readonly trustDomain: string;
  readonly rootNamespace: string;
  readonly network: string;
  /** Dry-run policies are sent to ztunnels: none of them may be so old that it enforces them. */
  readonly dryRunPolicies: boolean;
  /** Workloads behind a waypoint let nobody but it in. */
  readonly autoAllowWaypoints: boolean;

  /** Where hosts of ServiceEntries get an address from, one of each; none: they get none. */
  readonly vipBlocks: readonly Cidr[];

  readonly bindAddress: string;
  /** xDS and CA in plain text, for callers inside a trusted boundary. */
  readonly plaintextPort: number;
  /** xDS and CA over TLS with tokens. */
  readonly securePort: number;
  /** /ready and /debug. */
  readonly httpPort: number;
  readonly metricsPort: number;

  /** Where a self-signed CA keeps its key; undefined: in memory, gone with the process. */
  readonly caFolder: string | undefined;
  /** A plugged-in CA: ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem. */
  readonly caCertsFolder: string | undefined;
  /** The plugged-in roots may be rotated, with overlap, while running. */
  readonly multiRoot: boolean;
  readonly ttlDefaultSeconds: number;
  readonly ttlSecondsMax: number;
  /** Keys that sign workload tokens; undefined: port 15012 accepts nobody. */
  readonly jwksFile: string | undefined;
  readonly tokenIssuer: string | undefined;
  readonly tokenAudiences: readonly string[];
  /** "namespace/account" of the node proxies that may ask for their pods' certificates. */
  readonly trustedNodeAccounts: readonly string[];
  /** Names and addresses of the serving certificate besides the usual ones. */
  readonly extraSans: readonly string[];

  readonly debounceAfterMs: number;
  readonly debounceMaxMs: number;
  /** Proxies that one change is pushed to at a time. */
  readonly pushesPerTurn: number;
  /** After about this time a proxy's stream is ended, so that proxies spread over replicas again. */
  readonly streamAgeMs: number;
  readonly drainMs: number;
  readonly logLevel: string;
  readonly logFormat: "plain" | "json";
  readonly version: string;
}

const PORT = { min: 0, max: 65_535 };
/** Above it a change for all proxies would hold up everything else for long. */
const PUSH_THROTTLE = { min: 1, max: 10_000 };
const DRAIN_MS = 5_000;
/** A smaller block is a mistake: its first and last addresses are not used. */
const VIP_BLOCK_BITS_MIN = 2;

/** Parses all variables. Throws UserError with every problem found (exit code 2). */
export function parseConfig(env: Environment): Config {
  const read = new EnvironmentReader(env);
  const logLevel = read.text("LOG_LEVEL", "info");
  read.parsed("LOG_LEVEL", undefined, (value) => void parseLevelFilter(value));
  const config: Config = {
    manifests: list(read.text("MANIFESTS", "")),
    statusFolder: read.text("STATUS_DIR"),
    meshConfigFolder: read.text("MESH_CONFIG_DIR"),
    meshConfigName: read.text("MESH_CONFIG_NAME", "istio"),
    clusterId: read.text("CLUSTER_ID", "Kubernetes"),
    clusterDomain: read.text("CLUSTER_DOMAIN", "cluster.local"),
    trustDomain: read.text("TRUST_DOMAIN", "cluster.local"),
    rootNamespace: read.text("ROOT_NAMESPACE", "istio-system"),
    network: read.text("NETWORK", ""),
    dryRunPolicies: read.flag("AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY", false),
    autoAllowWaypoints: read.flag("PILOT_AUTO_ALLOW_WAYPOINT_POLICY", false),
    vipBlocks: vipBlocks(read),
    bindAddress: read.text("BIND_ADDRESS", "::"),
    plaintextPort: read.integer("XDS_PORT", 15_010, PORT),
    securePort: read.integer("XDS_TLS_PORT", 15_012, PORT),
    httpPort: read.integer("HTTP_PORT", 8080, PORT),
    metricsPort: read.integer("METRICS_PORT", 15_014, PORT),
    caFolder: read.text("CA_DIR"),
    caCertsFolder: read.text("CACERTS_DIR"),
    multiRoot: read.flag("ISTIO_MULTIROOT_MESH", false),
    ...lifetimes(read),
    jwksFile: read.text("JWKS_FILE"),
    tokenIssuer: read.text("TOKEN_ISSUER"),
    tokenAudiences: list(read.text("TOKEN_AUDIENCES", "istio-ca")),
    trustedNodeAccounts: accounts(read),
    extraSans: list(read.text("ISTIOD_SAN", "")),
    debounceAfterMs: read.durationMs("PILOT_DEBOUNCE_AFTER", 100),
    debounceMaxMs: read.durationMs("PILOT_DEBOUNCE_MAX", 10_000),
    pushesPerTurn: read.integer("PILOT_PUSH_THROTTLE", PUSHES_PER_TURN, PUSH_THROTTLE),
    streamAgeMs: read.durationMs("KEEPALIVE_MAX_SERVER_CONNECTION_AGE", STREAM_AGE_MS_MAX),
    drainMs: read.durationMs("TERMINATION_DRAIN_DURATION_SECONDS", DRAIN_MS),
    logLevel,
    logFormat: read.oneOf("LOG_FORMAT", ["plain", "json"], "plain"),
    version: read.text("ISTIO_META_ISTIO_VERSION", "unknown"),
  };
  if (config.manifests.length === 0) {
    read.reject("MANIFESTS", "name the files or folders of manifests, separated by commas");
  }
  if (config.jwksFile !== undefined && config.tokenIssuer === undefined) {
    read.reject("TOKEN_ISSUER", "name the issuer whose tokens JWKS_FILE verifies");
  }
  if (config.caFolder !== undefined && config.caCertsFolder !== undefined) {
    read.reject("CA_DIR", "a self-signed CA and a plugged-in one (CACERTS_DIR) exclude each other");
  }
  if (config.debounceMaxMs < config.debounceAfterMs) {
    read.reject("PILOT_DEBOUNCE_MAX", "must not be shorter than PILOT_DEBOUNCE_AFTER");
  }
  read.finish();
  return config;
}

/** Istio's: 240.240.0.0/16, which nobody routes, and 2001:2::/48, meant for benchmarks. */
function vipBlocks(read: EnvironmentReader): readonly Cidr[] {
  const block = (name: string, usual: string) => {
    const cidr = parseCidr(read.text(name, usual));
    const bits = cidr === undefined ? 0 : ipToBytes(cidr.ip).length * 8 - cidr.prefixLength;
    if (cidr !== undefined && bits >= VIP_BLOCK_BITS_MIN) return [cidr];
    read.reject(name, `is not a block of at least ${2 ** VIP_BLOCK_BITS_MIN} addresses`);
    return [];
  };
  const blocks = [
    ...block("PILOT_IP_AUTOALLOCATE_IPV4_PREFIX", "240.240.0.0/16"),
    ...block("PILOT_IP_AUTOALLOCATE_IPV6_PREFIX", "2001:2::/48"),
  ];
  return read.flag("PILOT_ENABLE_IP_AUTOALLOCATE", true) ? blocks : [];
}

function lifetimes(read: EnvironmentReader): LifetimeRules {
  const seconds = (name: string, fallback: number) => read.durationMs(name, fallback * 1000) / 1000;
  const rules: LifetimeRules = {
    ttlDefaultSeconds: seconds("DEFAULT_WORKLOAD_CERT_TTL", LIFETIME_RULES.ttlDefaultSeconds),
    ttlSecondsMax: seconds("MAX_WORKLOAD_CERT_TTL", LIFETIME_RULES.ttlSecondsMax),
  };
  if (rules.ttlDefaultSeconds > rules.ttlSecondsMax) {
    read.reject("DEFAULT_WORKLOAD_CERT_TTL", "must not be longer than MAX_WORKLOAD_CERT_TTL");
  }
  return rules;
}

function accounts(read: EnvironmentReader): readonly string[] {
  const names = list(read.text("CA_TRUSTED_NODE_ACCOUNTS", "istio-system/ztunnel"));
  for (const name of names) {
    if (!/^[^/]+\/[^/]+$/.test(name)) {
      read.reject("CA_TRUSTED_NODE_ACCOUNTS", `"${name}" is not namespace/service-account`);
    }
  }
  return names;
}

function list(text: string): readonly string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}
