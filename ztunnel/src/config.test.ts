import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { UserError } from "@ambit/common/process/errors.ts";
import { type Config, parseConfig } from "./config.ts";

let folder: string;
let meshFile: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ambit-config-"));
  meshFile = join(folder, "mesh");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const parse = (env: Record<string, string>) => parseConfig(env, meshFile);

const cpus = availableParallelism();

/** variable, value, field, expected. */
const VALUES: readonly [string, string, keyof Config, unknown][] = [
  ["PROXY_MODE", "shared", "proxyMode", "shared"],
  ["NODE_NAME", "node-1", "nodeName", "node-1"],
  ["NETWORK", "net1", "network", "net1"],
  ["CLUSTER_ID", "c1", "clusterId", "c1"],
  ["ISTIO_META_CLUSTER_ID", "c2", "clusterId", "c2"],
  ["CLUSTER_DOMAIN", "example.org", "clusterDomain", "example.org"],
  ["TRUST_DOMAIN", "td", "trustDomain", "td"],
  ["SAME_NODE", "hbone", "sameNode", "hbone"],
  ["XDS_ADDRESS", "istiod:15012", "xdsAddress", "https://istiod:15012"],
  ["XDS_ADDRESS", "http://istiod:15010", "xdsAddress", "http://istiod:15010"],
  ["XDS_ROOT_CA", "SYSTEM", "xdsRootCa", "SYSTEM"],
  ["ALT_XDS_HOSTNAME", "istiod", "xdsAlternativeHostname", "istiod"],
  ["XDS_HEADER_x-tenant", "a", "xdsHeaders", { "x-tenant": "a" }],
  ["CA_ADDRESS", "ca:15012", "caAddress", "https://ca:15012"],
  ["CA_ROOT_CA", "/root.pem", "caRootCa", "/root.pem"],
  ["ALT_CA_HOSTNAME", "ca", "caAlternativeHostname", "ca"],
  ["CA_HEADER_x-tenant", "b", "caHeaders", { "x-tenant": "b" }],
  ["AUTH_TOKEN", "/token", "authTokenFile", "/token"],
  ["FAKE_CA", "true", "fakeCa", true],
  ["SECRET_TTL", "60s", "secretTtlSeconds", 60],
  ["SECRET_TTL", "1h30m", "secretTtlSeconds", 5400],
  ["TLS12_ENABLED", "true", "tls", { tls12: true, compliance: "none" }],
  ["COMPLIANCE_POLICY", "pqc", "tls", { tls12: false, compliance: "pqc" }],
  ["COMPLIANCE_POLICY", "fips-140-2", "tls", { tls12: false, compliance: "fips-140-2" }],
  ["CRL_PATH", "/crl.pem", "crlPath", "/crl.pem"],
  ["LOCAL_XDS_PATH", "/mesh.yaml", "localXdsPath", "/mesh.yaml"],
  ["LOCAL_XDS", "workloads: []", "localXds", "workloads: []"],
  ["ENABLE_PROXY", "false", "proxyEnabled", false],
  ["INPOD_UDS", "/zds.sock", "zdsSocket", "/zds.sock"],
  ["PACKET_MARK", "7", "packetMark", 7],
  ["ENABLE_ORIG_SRC", "true", "originalSource", "required"],
  ["ENABLE_ORIG_SRC", "false", "originalSource", "never"],
  ["IPV6_ENABLED", "false", "ipv6", false],
  ["INPOD_PORT_REUSE", "false", "portReuse", false],
  ["ISTIO_META_DNS_CAPTURE", "false", "dnsProxy", false],
  ["ISTIO_META_DNS_CAPTURE", "TRUE", "dnsProxy", true],
  ["ISTIO_META_DNS_PROXY_ADDR", "127.0.0.2:53", "dnsProxyAddress", { ip: "127.0.0.2", port: 53 }],
  ["ISTIO_META_DNS_PROXY_ADDR", "localhost:5353", "dnsProxyAddress", { port: 5353 }],
  ["PREFERED_SERVICE_NAMESPACE", "shared", "preferredServiceNamespace", "shared"],
  ["ENABLE_RESPONSE_BAGGAGE", "false", "responseBaggage", false],
  ["UNSTABLE_ENABLE_SOCKS5", "true", "socks", true],
  ["LOCALHOST_APP_TUNNEL", "false", "localhostAppTunnel", false],
  ["POOL_MAX_STREAMS_PER_CONNECTION", "1", "poolStreamsPerConnectionMax", 1],
  ["POOL_UNUSED_RELEASE_TIMEOUT", "250ms", "poolUnusedReleaseMs", 250],
  ["KEEPALIVE_ENABLED", "false", "keepalive", undefined],
  ["ZTUNNEL_WORKER_THREADS", "3", "workerThreads", 3],
  ["ZTUNNEL_WORKER_THREADS", "0", "workerThreads", cpus],
  ["ZTUNNEL_WORKER_THREADS", "100%", "workerThreads", cpus],
  ["ZTUNNEL_WORKER_THREADS", "1%", "workerThreads", 1],
  ["ZTUNNEL_CPU_LIMIT", "5", "workerThreads", 5],
  ["ZTUNNEL_RESOURCE_CPU_LIMIT", "6", "workerThreads", 6],
  ["ZTUNNEL_RESOURCE_CPU_REQUEST", "99", "workerThreads", 99],
  ["POD_OUTBOUND_CONNECTIONS_MAX", "100", "podOutboundMax", 100],
  ["POD_INBOUND_CONNECTIONS_MAX", "100", "podInboundMax", 100],
  ["CONNECTION_TERMINATION_DEADLINE", "1m", "drainDeadlineMs", 60_000],
  ["TERMINATION_GRACE_PERIOD_SECONDS", "30", "drainDeadlineMs", 25_000],
  ["TERMINATION_GRACE_PERIOD_SECONDS", "10", "drainDeadlineMs", 9_000],
  ["TERMINATION_GRACE_PERIOD_SECONDS", "1", "drainDeadlineMs", 1_000],
  ["RUST_LOG", "info,access=debug", "logLevel", "info,access=debug"],
  ["LOG_FORMAT", "json", "logFormat", "json"],
  ["AUTHZ_POLICY_INFO_LOGGING", "true", "policyInfoLogging", true],
  ["INSTANCE_IP", "10.0.0.1", "instanceIp", "10.0.0.1"],
  ["POD_NAME", "ztunnel-x", "podName", "ztunnel-x"],
  ["POD_NAMESPACE", "istio-system", "podNamespace", "istio-system"],
  ["SERVICE_ACCOUNT", "ztunnel", "serviceAccount", "ztunnel"],
  ["ISTIO_META_OWNER", "me", "nodeMetadata", { OWNER: "me" }],
  ["ISTIO_METAJSON_LABELS", '{"a":1}', "nodeMetadata", { LABELS: { a: 1 } }],
];

describe("configuration from the environment", () => {
  it.each(VALUES)("%s=%s gives %s", (name, value, field, expected) => {
    expect(parse({ [name]: value })[field]).toEqual(expected);
  });

  it("has Istio's defaults", () => {
    expect(parse({})).toMatchObject({
      proxyMode: "shared",
      network: "",
      clusterId: "Kubernetes",
      clusterDomain: "cluster.local",
      xdsAddress: "https://localhost:15012",
      caAddress: "https://localhost:15012",
      secretTtlSeconds: 86_400,
      zdsSocket: "/var/run/ztunnel/ztunnel.sock",
      packetMark: 1337,
      originalSource: "auto",
      poolStreamsPerConnectionMax: 100,
      poolUnusedReleaseMs: 300_000,
      hbone: {
        streamWindowBytes: 4 * 2 ** 20,
        connectionWindowBytes: 16 * 2 ** 20,
        frameBytesMax: 2 ** 20,
      },
      keepalive: { timeSeconds: 180, intervalSeconds: 180, retries: 9, userTimeout: false },
      adminPort: 15_000,
      metricsPort: 15_020,
      readinessPort: 15_021,
      drainDeadlineMs: 5_000,
      logLevel: "info",
    });
  });

  it("looks for istiod's service inside Kubernetes", () => {
    const { xdsAddress } = parse({ KUBERNETES_SERVICE_HOST: "10.96.0.1" });
    expect(xdsAddress).toBe("https://istiod.istio-system.svc:15012");
  });

  it("sets no mark in dedicated mode unless asked to", () => {
    const env = { PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "ns/app/sa" };
    expect(parse(env)).toMatchObject({
      packetMark: undefined,
      proxyWorkload: { namespace: "ns", name: "app", serviceAccount: "sa" },
    });
    expect(parse({ ...env, PACKET_MARK: "1337" }).packetMark).toBe(1337);
  });

  it("asks the control plane on demand where DNS is not ours to answer", () => {
    const config = parse({ XDS_ON_DEMAND: "true", ISTIO_META_DNS_CAPTURE: "false" });
    expect(config).toMatchObject({ xdsOnDemand: true, dnsProxy: false });
  });

  it("is frozen and survives structured cloning, as workers get it", () => {
    const config = parse({});
    expect(Object.isFrozen(config)).toBe(true);
    expect(structuredClone(config)).toEqual(config);
  });
});

/** variables, what the message must name. */
const BAD: readonly [Record<string, string>, string][] = [
  [{ PROXY_MODE: "sidecar" }, "PROXY_MODE"],
  [{ PROXY_MODE: "dedicated" }, "PROXY_WORKLOAD_INFO"],
  [{ PROXY_WORKLOAD_INFO: "ns/app" }, "PROXY_WORKLOAD_INFO"],
  [{ FAKE_CA: "maybe" }, "FAKE_CA"],
  [{ SECRET_TTL: "soon" }, "SECRET_TTL"],
  [{ HTTP2_FRAME_SIZE: "16383" }, "HTTP2_FRAME_SIZE"],
  [{ HTTP2_STREAM_WINDOW_SIZE: "65534" }, "HTTP2_STREAM_WINDOW_SIZE"],
  [{ PACKET_MARK: "4294967296" }, "PACKET_MARK"],
  [{ POOL_MAX_STREAMS_PER_CONNECTION: "0" }, "POOL_MAX_STREAMS_PER_CONNECTION"],
  [{ ZTUNNEL_WORKER_THREADS: "many" }, "ZTUNNEL_WORKER_THREADS"],
  [{ ZTUNNEL_WORKER_THREADS: "2", INPOD_PORT_REUSE: "false" }, "INPOD_PORT_REUSE"],
  [{ RUST_LOG: "loud" }, "RUST_LOG"],
  [{ ADMIN_PORT: "65536" }, "ADMIN_PORT"],
  [{ LOCAL_XDS: "{}", LOCAL_XDS_PATH: "/x" }, "LOCAL_XDS"],
  [{ ISTIO_METAJSON_X: "{" }, "ISTIO_METAJSON_X"],
  [{ PROXY_CONFIG: "proxyAdminPort: high" }, "PROXY_CONFIG"],
  [{ PROXY_CONFIG: "{" }, "PROXY_CONFIG"],
  [{ XDS_ON_DEMAND: "true" }, "XDS_ON_DEMAND"],
  [{ ISTIO_META_DNS_PROXY_ADDR: "not-an-address" }, "ISTIO_META_DNS_PROXY_ADDR"],
  [{ TLS12_ENABLED: "perhaps" }, "TLS12_ENABLED"],
  [{ COMPLIANCE_POLICY: "fips-999" }, "COMPLIANCE_POLICY"],
];

describe("bad configuration", () => {
  it.each(BAD)("%j is refused by name", (env, name) => {
    expect(() => parse(env)).toThrow(UserError);
    expect(() => parse(env)).toThrow(name);
  });

  it("is reported all at once", () => {
    const env = { FAKE_CA: "x", IPV6_ENABLED: "y", SECRET_TTL: "z", PROXY_CONFIG: "[" };
    expect(() => parse(env)).toThrow(/PROXY_CONFIG.*IPV6_ENABLED|FAKE_CA/);
    for (const name of Object.keys(env)) expect(() => parse(env)).toThrow(name);
  });
});

describe("precedence of the mesh configuration", () => {
  const MESH = `
defaultConfig:
  discoveryAddress: mesh:15012
  proxyAdminPort: 1
  statsPort: 1
  concurrency: 1
  proxyMetadata: { ISTIO_META_CLUSTER_ID: mesh, DNS_AGENT: x }
rootNamespace: istio-system
`;

  it("takes the mesh file alone", () => {
    writeFileSync(meshFile, MESH);
    expect(parse({})).toMatchObject({
      xdsAddress: "https://mesh:15012",
      caAddress: "https://mesh:15012",
      adminPort: 1,
      metricsPort: 1,
      workerThreads: 1,
      clusterId: "mesh",
    });
  });

  it("puts PROXY_CONFIG above the mesh file and the environment above both", () => {
    writeFileSync(meshFile, MESH);
    const env = { PROXY_CONFIG: "{proxyAdminPort: 2, statsPort: 2}", STATS_PORT: "3" };
    expect(parse(env)).toMatchObject({ adminPort: 2, metricsPort: 3, workerThreads: 1 });
  });

  it("names the mesh file when it is not YAML", () => {
    writeFileSync(meshFile, "{");
    expect(() => parse({})).toThrow(meshFile);
  });
});
