// A datapath worker: its own listeners in every pod, its own pools and its own copy of the mesh state.
// Speaks the protocol of protocol.ts with the main thread and owns nothing outside its thread.

import { flushCompileCache } from "node:module";
import { parentPort, workerData } from "node:worker_threads";
import { assert } from "@ambit/common/process/assert.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { fdLoop } from "@ambit/common/sys/fd-loop.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { Log } from "@ambit/common/telemetry/log.ts";
import { type SpiffeId, spiffeId } from "@ambit/common/tls/identity.ts";
import { parseRevocationLists } from "@ambit/common/tls/revocation-list.ts";
import { TlsPolicy } from "@ambit/common/tls/tls-policy.ts";
import { DirectPaths } from "../direct/direct-paths.ts";
import { openDirectKernel } from "../direct/kernel.ts";
import { DirectUpkeep } from "../direct/upkeep.ts";
import { ConnectionTable } from "../proxy/connection.ts";
import type { Pod, ProxyContext } from "../proxy/context.ts";
import { explain } from "../proxy/explain.ts";
import { HostNames } from "../proxy/host-names.ts";
import { knownWorkload } from "../proxy/identify.ts";
import type { PodSteering } from "../proxy/pod-listeners.ts";
import { decideOnDemand } from "../proxy/on-demand.ts";
import { PodProxy } from "../proxy/pod-proxy.ts";
import { dropStaleTunnels, reviewConnections } from "../proxy/review.ts";
import { applyRevocations, RevocationGuard } from "../proxy/revocation.ts";
import { SelfProxy } from "../proxy/self-proxy.ts";
import { dumpState } from "../state/dump.ts";
import { MeshState } from "../state/mesh-state.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";
import { FailureLog } from "../telemetry/failure-log.ts";
import { DnsTelemetry } from "../telemetry/dns-telemetry.ts";
import { PolicyTelemetry } from "../telemetry/policy-telemetry.ts";
import { OnDemandDnsMetrics } from "../telemetry/on-demand-dns.ts";
import { OpenSockets } from "../telemetry/open-sockets.ts";
import { PodMetrics } from "../telemetry/pod-metrics.ts";
import { TrafficMetrics } from "../telemetry/traffic-metrics.ts";
import { CertificateView } from "./certificates.ts";
import { tidyWhenIdle } from "./idle-memory.ts";
import { DemandView } from "./demand-view.ts";
import type {
  RequestMessage,
  RequestName,
  Requests,
  WorkerInit,
  WorkerMessage,
} from "./protocol.ts";

assert(parentPort !== null, "the worker runs as a worker thread");
const port = parentPort;
const { config, index, waitedMs } = workerData as WorkerInit;
fdLoop().countWaits(waitedMs);

const log = new Log({ format: config.logFormat, level: config.logLevel });
const state = new MeshState();
const metrics = new TrafficMetrics();
const failures = new FailureLog();
const onDemandDns = new OnDemandDnsMetrics();
const sockets = new OpenSockets();
const podMetrics = new PodMetrics(threadCpuSeconds);
const proxies = new Map<string, PodProxy>();
let selfProxy: SelfProxy | undefined;

const tell = (message: WorkerMessage) => port.postMessage(message);

const direct = new DirectPaths({
  open: (pins) => openDirectKernel(pins, systemClock),
  cookieOf: cookieOfNetns,
});

const context: ProxyContext = {
  config,
  state,
  certificates: new CertificateView(systemClock, (id, urgency) =>
    tell({ type: "certificateWanted", id, urgency }),
  ),
  connections: new ConnectionTable(),
  direct,
  names: new HostNames(systemClock, Math.random),
  demand: config.xdsOnDemand
    ? new DemandView(systemClock, (key) => tell({ type: "resourceWanted", key }))
    : undefined,
  tls: new TlsPolicy(config.tls),
  revocation: config.crlPath === undefined ? undefined : new RevocationGuard(),
  telemetry: { metrics, failures, access: log.scope("access"), clock: systemClock },
  onDemandDns,
  sockets,
  dns: new DnsTelemetry(log.scope("dns")),
  policyTelemetry: new PolicyTelemetry(log.scope("policy"), config.policyInfoLogging),
  log: log.scope("proxy"),
  clock: systemClock,
  random: Math.random,
  localPod,
};

/** One worker keeps the books of connections that no worker sees. */
const upkeep = index === 0 ? new DirectUpkeep(context, direct) : undefined;

/** Only a workload of this node can be a local pod; names are unique within a node. */
function localPod(workload: Workload): Pod | undefined {
  if (config.nodeName === undefined || workload.node !== config.nodeName) return undefined;
  for (const { pod } of proxies.values()) {
    if (pod.info.name === workload.name && pod.info.namespace === workload.namespace) return pod;
  }
  return undefined;
}

function pods(): Iterable<Pod> {
  return proxies.values().map(({ pod }) => pod);
}

type Handlers = {
  [N in RequestName]: (
    ask: Requests[N]["ask"],
  ) => Requests[N]["answer"] | Promise<Requests[N]["answer"]>;
};

const handlers: Handlers = {
  xds: ({ kind, update }) => {
    const rejections =
      kind === "address" ? state.applyAddresses(update) : state.applyAuthorizations(update);
    reviewConnections(context);
    direct.review(context);
    warmCertificates();
    if (kind === "address") dropStaleTunnels(context, pods());
    return rejections;
  },
  addPod: async ({ uid, info, netnsFd, steering }) => {
    const before = proxies.get(uid);
    proxies.delete(uid);
    await before?.stop("immediate", 0);
    proxies.set(uid, new PodProxy(context, { uid, info, netnsFd, steering }));
    steerDirectly(uid, steering);
    warmCertificates();
    return null;
  },
  steerPod: ({ uid, steering }) => {
    proxies.get(uid)?.steer(steering);
    steerDirectly(uid, steering);
    return null;
  },
  serveSelf: ({ info }) => {
    selfProxy = new SelfProxy(context, info);
    return null;
  },
  ping: () => null,
  removePod: async ({ uid }) => {
    const proxy = proxies.get(uid);
    proxies.delete(uid);
    const identity = proxy && identityOf(proxy.pod);
    direct.removePod(context, uid);
    upkeep?.podsChanged();
    await proxy?.stop("immediate", 0);
    if (identity !== undefined && !localIdentities().has(identity))
      tell({ type: "certificateUnwanted", id: identity });
    return null;
  },
  demanded: ({ key, result }) => {
    context.demand?.update(key, result);
    return null;
  },
  certificate: ({ id, certificate, error }) => {
    context.certificates.update(id, certificate, error);
    direct.review(context);
    return null;
  },
  revocations: ({ file }) => {
    applyRevocations(context, parseRevocationLists(Buffer.from(file)));
    direct.review(context);
    return null;
  },
  drain: async ({ deadlineMs }) => {
    direct.stop();
    const all = [...proxies.values(), ...(selfProxy === undefined ? [] : [selfProxy])];
    await Promise.all(all.map((proxy) => proxy.stop("graceful", deadlineMs)));
    return null;
  },
  logLevel: ({ filter }) => {
    log.setLevel(filter);
    return null;
  },
  stateDump: () => dumpState(state),
  connections: () => [...context.connections.summaries(), ...(upkeep?.summaries() ?? [])],
  podUsage: () => {
    upkeep?.sync();
    return podMetrics.usage(pods());
  },
  metrics: () => {
    upkeep?.sync();
    return [
      ...metrics.collect(),
      ...failures.collect(),
      ...onDemandDns.collect(),
      ...sockets.collect(),
      ...podMetrics.collect(pods()),
      ...context.dns.collect(),
      ...context.policyTelemetry.collect(),
      ...(context.revocation?.collect() ?? []),
    ];
  },
  failures: ({ id }) => failures.find(id),
  explain: ({ source, destination }) => {
    const { demand } = context;
    if (demand === undefined) return explain(context, source, destination);
    return decideOnDemand(demand, (missed) => explain(context, source, destination, missed));
  },
};

/** The pod's connections may, or may no longer, go past us. */
function steerDirectly(uid: string, steering: PodSteering | undefined): void {
  const proxy = proxies.get(uid);
  if (proxy === undefined) return;
  direct.setPod(context, proxy.pod, steering);
  upkeep?.podsChanged();
}

function threadCpuSeconds(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1e6;
}

/** Asks early for the certificates of our pods, so that the first connection finds them. */
function warmCertificates(): void {
  for (const id of localIdentities()) context.certificates.warm(id);
}

function localIdentities(): Set<SpiffeId> {
  return new Set([...proxies.values()].flatMap(({ pod }) => identityOf(pod) ?? []));
}

function identityOf(pod: Pod): SpiffeId | undefined {
  const workload = knownWorkload(context, pod);
  return workload && spiffeId(workloadIdentity(workload));
}

async function handle<N extends RequestName>({ id, name, ask }: RequestMessage<N>): Promise<void> {
  try {
    tell({ type: "answer", id, value: await handlers[name](ask) });
  } catch (error) {
    tell({ type: "failure", id, error: errorMessage(error) });
  }
}

port.on("message", (message: RequestMessage) => void handle(message));
tell({ type: "ready" });
tidyWhenIdle(systemClock);
// Whoever starts from the cache never loads the stripper of types, which costs each thread 10 MiB.
flushCompileCache();
