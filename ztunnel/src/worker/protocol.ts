// What the main thread and a datapath worker say to each other. Everything here is plain data that
// structured cloning carries; requests have an id, and exactly one answer.

import type { WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import type { SpiffeId } from "@ambit/common/tls/identity.ts";
import type { DemandResult } from "@ambit/common/xds/delta-types.ts";
import type { PodUsage } from "@ambit/common/telemetry/pod-usage.ts";
import type { Config } from "../config.ts";
import type { ConnectionSummary } from "../proxy/connection.ts";
import type { PodInfo, Rejection, ResourceUpdate } from "../state/mesh-state.ts";
import type { PodSteering } from "../proxy/pod-listeners.ts";
import type { Explanation } from "../proxy/explain.ts";
import type { StateDump } from "../state/dump.ts";
import type { Urgency } from "./certificates.ts";
import type { Failure } from "../telemetry/failure-log.ts";
import type { MetricFamily } from "../telemetry/traffic-metrics.ts";

export type XdsKind = "address" | "authorization";

/** Given to a worker when it starts. */
export interface WorkerInit {
  readonly index: number;
  readonly config: Config;
  /** Where it counts how long it has waited outside of Node's event loop, in milliseconds. */
  readonly waitedMs: Float64Array<SharedArrayBuffer>;
}

/** Requests of the main thread, each with the type of its answer. */
export interface Requests {
  /** Applies resources; answers with those that are malformed. */
  xds: {
    readonly ask: { readonly kind: XdsKind; readonly update: ResourceUpdate };
    readonly answer: Rejection[];
  };
  /** Opens the pod's listeners; fails when they cannot be bound. */
  addPod: {
    readonly ask: {
      readonly uid: string;
      readonly info: PodInfo;
      readonly netnsFd: number | undefined;
      readonly steering: PodSteering | undefined;
    };
    readonly answer: null;
  };
  /** The pod's connections come another way from now on, or come to us again; none is cut. */
  steerPod: {
    readonly ask: { readonly uid: string; readonly steering: PodSteering | undefined };
    readonly answer: null;
  };
  /** Answered by a worker that is alive. */
  ping: { readonly ask: null; readonly answer: null };
  /** Takes tunnels to ztunnel itself; fails when their port cannot be bound. */
  serveSelf: { readonly ask: { readonly info: PodInfo }; readonly answer: null };
  /** Cuts the pod's connections and closes its listeners. */
  removePod: { readonly ask: { readonly uid: string }; readonly answer: null };
  /** What the control plane said of a resource that some worker lacked. */
  demanded: {
    readonly ask: { readonly key: string; readonly result: DemandResult };
    readonly answer: null;
  };
  certificate: {
    readonly ask: {
      readonly id: SpiffeId;
      readonly certificate?: WorkloadCertificate;
      readonly error?: string;
    };
    readonly answer: null;
  };
  /** The file of revocation lists, in force from now on. */
  revocations: { readonly ask: { readonly file: Uint8Array }; readonly answer: null };
  /** Stops accepting and waits for the connections, at most this long. */
  drain: { readonly ask: { readonly deadlineMs: number }; readonly answer: null };
  logLevel: { readonly ask: { readonly filter: string }; readonly answer: null };
  stateDump: { readonly ask: null; readonly answer: StateDump };
  connections: { readonly ask: null; readonly answer: ConnectionSummary[] };
  /** What each pod has cost this worker. */
  podUsage: {
    readonly ask: null;
    readonly answer: { readonly uid: string; readonly usage: PodUsage }[];
  };
  metrics: { readonly ask: null; readonly answer: MetricFamily[] };
  /** The latest connections with this id that ended other than well. */
  failures: { readonly ask: { readonly id: string }; readonly answer: Failure[] };
  explain: {
    readonly ask: { readonly source: string; readonly destination: string };
    readonly answer: Explanation;
  };
}

export type RequestName = keyof Requests;

export interface RequestMessage<N extends RequestName = RequestName> {
  readonly id: number;
  readonly name: N;
  readonly ask: Requests[N]["ask"];
}

export type AnswerMessage =
  | { readonly type: "answer"; readonly id: number; readonly value: unknown }
  | { readonly type: "failure"; readonly id: number; readonly error: string };

/** What a worker says unasked. */
export type WorkerMessage =
  | AnswerMessage
  | { readonly type: "ready" }
  /** On-demand xDS: a resource that the state lacks. */
  | { readonly type: "resourceWanted"; readonly key: string }
  | {
      readonly type: "certificateWanted";
      readonly id: SpiffeId;
      readonly urgency: Urgency;
    }
  | { readonly type: "certificateUnwanted"; readonly id: SpiffeId };
