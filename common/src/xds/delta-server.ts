// The delta xDS server: accepts streams, authenticates them, and tells every session about store
// changes. Owns the sessions; the resources belong to the ResourceStore.

import { status, type Metadata, type Server } from "@grpc/grpc-js";
import {
  AggregatedDiscoveryService,
  type DeltaDiscoveryRequest,
} from "@ambit/api/gen/envoy/discovery_pb.ts";
import type { Clock, Timer } from "../process/clock.ts";
import { errorMessage } from "../process/errors.ts";
import type { Logger } from "../telemetry/log.ts";
import {
  type DeltaObserver,
  DeltaSession,
  type NodeCheck,
  type ServerStream,
  type SessionStatus,
} from "./delta-session.ts";
import { grpcServiceDefinition, RpcError } from "./grpc-service.ts";
import {
  FIRST_REQUEST_TIMEOUT_MS,
  PUSHES_PER_TURN,
  SESSIONS_MAX,
  STREAM_AGE_JITTER,
  STREAM_AGE_MS_MAX,
  UNACKNOWLEDGED_BYTES_MAX,
} from "./limits.ts";
import { PushQueue } from "./push-queue.ts";
import type { ResourceStore } from "./resource-store.ts";
import { SendBudget } from "./send-budget.ts";

/** Who is calling. Resolves with the check of the node it claims to be; rejects with an RpcError. */
export type Authenticator = (metadata: Metadata) => Promise<NodeCheck>;

/** For plaintext ports inside a trusted boundary: anyone may be any node. */
export const allowAnyone: Authenticator = () => Promise.resolve(() => undefined);

export interface DeltaServerOptions {
  readonly store: ResourceStore;
  readonly clock: Clock;
  /** In [0, 1). */
  readonly random: () => number;
  readonly log: Logger;
  readonly observer: DeltaObserver;
  /** Some client has acknowledged something, or is gone. */
  readonly onProgress?: () => void;
  readonly streamAgeMs?: number;
  readonly pushesPerTurn?: number;
  readonly sessionsMax?: number;
  readonly unacknowledgedBytesMax?: number;
}

/** How far the clients of a kind are with a change. */
export interface Acknowledgement {
  readonly clients: number;
  /** "pod.namespace" of those that have not acknowledged it yet. */
  readonly waiting: readonly string[];
  /** What was refused since, with the clients' own words for what and why. */
  readonly rejections: readonly { readonly proxy: string; readonly reason: string }[];
}

export class DeltaServer {
  readonly #options: DeltaServerOptions;
  readonly #sessions = new Set<DeltaSession>();
  readonly #budget: SendBudget;
  readonly #queue: PushQueue<DeltaSession>;
  readonly #stopListening: () => void;
  /** Streams being authenticated. */
  #accepting = 0;
  #streams = 0;
  /** Part of every nonce, so that none of an earlier process is taken for ours. */
  readonly #epoch: string;
  #closed = false;

  constructor(options: DeltaServerOptions) {
    this.#options = options;
    this.#budget = new SendBudget(options.unacknowledgedBytesMax ?? UNACKNOWLEDGED_BYTES_MAX);
    this.#epoch = Math.floor(options.random() * 2 ** 32).toString(36);
    this.#queue = new PushQueue(options.pushesPerTurn ?? PUSHES_PER_TURN);
    this.#stopListening = options.store.listen((change) => {
      this.#queue.add([...this.#sessions].filter((session) => session.noteChange(change)));
    });
  }

  /** Serves AggregatedDiscoveryService on a gRPC server; may be called for several servers. */
  register(server: Server, authenticate: Authenticator): void {
    const definition = grpcServiceDefinition(AggregatedDiscoveryService);
    const method = definition["deltaAggregatedResources"]!;
    server.addService(
      { deltaAggregatedResources: { ...method, responseSerialize: (bytes: Buffer) => bytes } },
      {
        deltaAggregatedResources: (stream: ServerStream) => void this.#accept(stream, authenticate),
      },
    );
  }

  /** Clients that have introduced themselves. */
  get sessions(): readonly SessionStatus[] {
    return [...this.#sessions].map((session) => session.status()).filter((s) => s !== undefined);
  }

  /** Who of the clients of `nodeType` has acknowledged every change up to the store's epoch. */
  acknowledgement(nodeType: string, epoch: number): Acknowledgement {
    const waiting: string[] = [];
    const rejections: { proxy: string; reason: string }[] = [];
    let clients = 0;
    for (const session of this.#sessions) {
      const { node } = session;
      if (node?.type !== nodeType) continue;
      clients++;
      const proxy = `${node.name}.${node.namespace}`;
      if (!session.hasReached(epoch)) waiting.push(proxy);
      for (const reason of session.rejectionsSince(epoch)) rejections.push({ proxy, reason });
    }
    return { clients, waiting, rejections };
  }

  /** Ends every stream with status OK; later ones are refused. */
  close(): void {
    this.#closed = true;
    this.#stopListening();
    this.#queue.close();
    for (const session of this.#sessions) session.end();
  }

  async #accept(stream: ServerStream, authenticate: Authenticator): Promise<void> {
    // Without a listener grpc-js would throw what ends the stream.
    stream.on("error", () => undefined);
    this.#accepting++;
    try {
      if (this.#closed) throw new RpcError(status.UNAVAILABLE, "shutting down");
      const { sessionsMax = SESSIONS_MAX } = this.#options;
      if (this.#sessions.size + this.#accepting > sessionsMax) {
        throw new RpcError(status.RESOURCE_EXHAUSTED, "too many connected proxies");
      }
      const checkNode = await authenticate(stream.metadata);
      if (!stream.cancelled) this.#serve(stream, checkNode);
    } catch (error) {
      const code = error instanceof RpcError ? error.code : status.UNAUTHENTICATED;
      this.#options.log.warn("refused an xDS stream", {
        peer: stream.getPeer(),
        reason: errorMessage(error),
      });
      stream.emit("error", { code, details: errorMessage(error) });
    } finally {
      this.#accepting--;
    }
  }

  #serve(stream: ServerStream, checkNode: NodeCheck): void {
    const { store, clock, log, observer, onProgress = () => undefined } = this.#options;
    const id = `${this.#epoch}-${++this.#streams}`;
    const budget = this.#budget;
    const session = new DeltaSession({
      id,
      stream,
      store,
      budget,
      checkNode,
      clock,
      log,
      observer,
      onProgress,
    });
    this.#sessions.add(session);
    const timers = this.#limitAge(session);
    const close = () => {
      for (const timer of timers) timer.cancel();
      session.close();
      this.#queue.forget(session);
      this.#sessions.delete(session);
    };
    stream.on("data", (request: DeltaDiscoveryRequest) => session.onRequest(request));
    stream.on("end", () => session.end());
    for (const event of ["cancelled", "error", "close", "finish"]) stream.on(event, close);
    if (this.#closed) session.end();
  }

  /** Ends streams that never speak, and all of them at about the maximal age. */
  #limitAge(session: DeltaSession): readonly Timer[] {
    const { clock, random, streamAgeMs = STREAM_AGE_MS_MAX } = this.#options;
    const ageMs = streamAgeMs * (1 + STREAM_AGE_JITTER * (2 * random() - 1));
    return [
      clock.after(ageMs, () => session.end()),
      clock.after(FIRST_REQUEST_TIMEOUT_MS, () => {
        if (session.node === undefined) session.end();
      }),
    ];
  }
}
