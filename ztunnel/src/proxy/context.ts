// What every step of a connection's life may use: one bundle per worker, and one per pod. Passed down,
// never global.

import type { TunnelPool } from "@ambit/common/hbone/pool.ts";
import type { Clock } from "@ambit/common/process/clock.ts";
import type { ByteDialer } from "@ambit/common/sys/byte-dialer.ts";
import type { Drain } from "@ambit/common/process/drain.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { TlsPolicy } from "@ambit/common/tls/tls-policy.ts";
import type { Config } from "../config.ts";
import type { DirectPaths } from "../direct/direct-paths.ts";
import type { Random } from "../state/endpoint-choice.ts";
import type { MeshState, PodInfo } from "../state/mesh-state.ts";
import type { Workload } from "../state/workload.ts";
import type { TelemetrySinks } from "../telemetry/connection-telemetry.ts";
import type { DnsTelemetry } from "../telemetry/dns-telemetry.ts";
import type { PolicyTelemetry } from "../telemetry/policy-telemetry.ts";
import type { OnDemandDnsMetrics } from "../telemetry/on-demand-dns.ts";
import type { PodAccount } from "../telemetry/pod-account.ts";
import type { OpenSockets } from "../telemetry/open-sockets.ts";
import type { CertificateView } from "../worker/certificates.ts";
import type { DemandView } from "../worker/demand-view.ts";
import type { ConnectionTable } from "./connection.ts";
import type { HostNames } from "./host-names.ts";
import type { RevocationGuard } from "./revocation.ts";

export interface ProxyContext {
  readonly config: Config;
  readonly state: MeshState;
  readonly certificates: CertificateView;
  readonly connections: ConnectionTable;
  /** Connections of this node's pods that go past us. */
  readonly direct: DirectPaths;
  readonly names: HostNames;
  /** Only where xDS is on demand. */
  readonly demand?: DemandView | undefined;
  readonly tls: TlsPolicy;
  /** undefined where no revocation lists are configured. */
  readonly revocation: RevocationGuard | undefined;
  readonly telemetry: TelemetrySinks;
  readonly dns: DnsTelemetry;
  readonly policyTelemetry: PolicyTelemetry;
  readonly onDemandDns: OnDemandDnsMetrics;
  readonly sockets: OpenSockets;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
  /** The pod of a workload when it is one of ours, on this node and in this worker. */
  localPod(workload: Workload): Pod | undefined;
}

/** One enrolled pod. */
export interface Pod {
  readonly uid: string;
  readonly info: PodInfo;
  /** undefined: our own namespace (dedicated mode). */
  readonly netnsFd: number | undefined;
  /** Connects from the pod's namespace. */
  readonly dialer: ByteDialer;
  readonly pool: TunnelPool;
  /** Where ztunnel itself listens in the pod: calling them through us would loop. */
  readonly ownPorts: ReadonlySet<number>;
  readonly drain: Drain;
  /** What the pod costs, and whether it may have more. */
  readonly account: PodAccount;
}
