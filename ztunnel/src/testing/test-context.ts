// What the steps of a connection's life share, for tests: a real state and real tables under a clock
// that the test moves, with the log kept in memory.

import { TunnelPool } from "@ambit/common/hbone/pool.ts";
import { Drain } from "@ambit/common/process/drain.ts";
import { ByteDialer } from "@ambit/common/sys/byte-dialer.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import type { SpiffeId } from "@ambit/common/tls/identity.ts";
import { TlsPolicy } from "@ambit/common/tls/tls-policy.ts";
import { type Config, parseConfig } from "../config.ts";
import { DirectPaths } from "../direct/direct-paths.ts";
import { ConnectionTable } from "../proxy/connection.ts";
import type { Pod, ProxyContext } from "../proxy/context.ts";
import { HostNames, type NameLookup } from "../proxy/host-names.ts";
import type { Random } from "../state/endpoint-choice.ts";
import type { RevocationGuard } from "../proxy/revocation.ts";
import { MeshState, type PodInfo } from "../state/mesh-state.ts";
import type { Workload } from "../state/workload.ts";
import { FailureLog } from "../telemetry/failure-log.ts";
import { DnsTelemetry } from "../telemetry/dns-telemetry.ts";
import { PolicyTelemetry } from "../telemetry/policy-telemetry.ts";
import { OnDemandDnsMetrics } from "../telemetry/on-demand-dns.ts";
import { connectionBounds } from "../proxy/admit.ts";
import { PodAccount } from "../telemetry/pod-account.ts";
import { OpenSockets } from "../telemetry/open-sockets.ts";
import { TrafficMetrics } from "../telemetry/traffic-metrics.ts";
import { CertificateView } from "../worker/certificates.ts";

export interface TestContext extends ProxyContext {
  readonly clock: FakeClock;
  /** Identities whose certificate was asked for. */
  readonly wanted: SpiffeId[];
  /** Every log line so far. */
  lines(): Record<string, unknown>[];
}

export interface TestContextParts {
  readonly state?: MeshState;
  readonly config?: Partial<Config>;
  readonly revocation?: RevocationGuard;
  readonly direct?: DirectPaths;
  localPod?(workload: Workload): Pod | undefined;
  readonly random?: Random;
  /** What DNS says; nothing otherwise. */
  lookup?: NameLookup;
}

/** The node is node-1 unless `config` says otherwise. */
export function testContext(parts: TestContextParts = {}): TestContext {
  const clock = new FakeClock();
  const { log, lines } = memoryLog();
  const wanted: SpiffeId[] = [];
  const config = { ...parseConfig({ NODE_NAME: "node-1" }), ...parts.config };
  return {
    config,
    state: parts.state ?? new MeshState(),
    certificates: new CertificateView(clock, (id) => wanted.push(id)),
    connections: new ConnectionTable(),
    direct: parts.direct ?? new DirectPaths({ open: noKernel, cookieOf: () => 0n }),
    names: new HostNames(clock, () => 0, parts.lookup ?? nothingFound),
    tls: new TlsPolicy(config.tls),
    revocation: parts.revocation,
    telemetry: {
      metrics: new TrafficMetrics(),
      failures: new FailureLog(),
      access: log.scope("access"),
      clock,
    },
    onDemandDns: new OnDemandDnsMetrics(),
    sockets: new OpenSockets(),
    dns: new DnsTelemetry(log.scope("dns")),
    policyTelemetry: new PolicyTelemetry(log.scope("policy"), config.policyInfoLogging),
    log: log.scope("proxy"),
    clock,
    random: parts.random ?? (() => 0.5),
    localPod: (workload) => parts.localPod?.(workload),
    wanted,
    lines: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>),
  };
}

function noKernel(): never {
  throw new Error("there is no kernel here");
}

function nothingFound(): Promise<never> {
  return Promise.reject(new Error("no such name"));
}

/** An enrolled pod that has no namespace and dials nobody. */
export function testPod({ clock, config }: TestContext, info: PodInfo): Pod {
  return {
    uid: `uid-${info.name}`,
    info,
    netnsFd: undefined,
    account: new PodAccount(connectionBounds({ config })),
    dialer: new ByteDialer(undefined),
    ownPorts: new Set([15_001, 15_006, 15_008]),
    drain: new Drain(clock),
    pool: new TunnelPool({
      clock,
      streamsPerConnectionMax: config.poolStreamsPerConnectionMax,
      unusedReleaseMs: config.poolUnusedReleaseMs,
      dial: () => Promise.reject(new Error("this pod dials nobody")),
    }),
  };
}
