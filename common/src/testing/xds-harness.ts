// A delta server and clients over loopback for tests: a client that keeps what it was told and can be
// awaited by condition, and a raw stream for speaking the protocol by hand.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Client, type ClientDuplexStream, ServerCredentials } from "@grpc/grpc-js";
import {
  AggregatedDiscoveryService,
  type DeltaDiscoveryRequest,
  DeltaDiscoveryRequestSchema,
  type DeltaDiscoveryResponse,
} from "@ambit/api/gen/envoy/discovery_pb.ts";
import { systemClock } from "../process/clock.ts";
import { memoryLog } from "../telemetry/log.ts";
import { DeltaClient } from "../xds/delta-client.ts";
import { allowAnyone, type Authenticator, DeltaServer } from "../xds/delta-server.ts";
import type { DeltaServerOptions } from "../xds/delta-server.ts";
import type { DeltaObserver } from "../xds/delta-session.ts";
import type { DeltaClientOptions, Rejection, TypeUpdate } from "../xds/delta-types.ts";
import { type ChannelTarget, createClient } from "../xds/grpc-channel.ts";
import { GrpcServer } from "../xds/grpc-server.ts";
import { callStream } from "../xds/grpc-service.ts";
import { ResourceStore } from "../xds/resource-store.ts";
import type { SubscriptionRequest } from "../xds/watched-type.ts";
import { Signal } from "./signal.ts";
import { contentVersion, type XdsResource, ZTUNNEL_TYPES } from "../xds/resource-type.ts";

export const NODE_ID = "ztunnel~10.0.0.1~ztunnel-a.istio-system~istio-system.svc.cluster.local";

/** A resource whose value is its text. */
export function resource(name: string, text: string, more: Partial<XdsResource> = {}): XdsResource {
  const value = new TextEncoder().encode(text);
  return { name, version: contentVersion(value), aliases: [], value, ...more };
}

/** An observer that counts. */
export class CountingObserver implements DeltaObserver {
  readonly signal = new Signal();
  readonly counts: Record<string, number> = {};
  readonly rejections: string[] = [];

  connected(): void {
    this.#count("connected");
  }
  disconnected(): void {
    this.#count("disconnected");
  }
  sent(_typeUrl: string, response: { resources: number; removed: number }): void {
    this.counts["resources"] = (this.counts["resources"] ?? 0) + response.resources;
    this.counts["removed"] = (this.counts["removed"] ?? 0) + response.removed;
    this.#count("responses");
  }
  converged(): void {
    this.#count("converged");
  }
  rejected(_typeUrl: string, _node: unknown, reason: string): void {
    this.rejections.push(reason);
    this.#count("rejected");
  }
  expiredNonce(): void {
    this.#count("expiredNonce");
  }
  timedOut(): void {
    this.#count("timedOut");
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
    this.signal.changed();
  }
}

export class TestServer {
  readonly delta: DeltaServer;
  readonly grpc: GrpcServer;
  readonly observer: CountingObserver;

  private constructor(delta: DeltaServer, grpc: GrpcServer, observer: CountingObserver) {
    this.delta = delta;
    this.grpc = grpc;
    this.observer = observer;
  }

  static async start(
    store: ResourceStore,
    options: Partial<DeltaServerOptions> & { port?: number; authenticate?: Authenticator } = {},
  ): Promise<TestServer> {
    const observer = new CountingObserver();
    const delta = new DeltaServer({
      store,
      clock: systemClock,
      random: () => 0.5,
      log: memoryLog().log.scope("xds"),
      observer,
      ...options,
    });
    const grpc = await GrpcServer.listen({
      name: "xds",
      host: "127.0.0.1",
      port: options.port ?? 0,
      credentials: ServerCredentials.createInsecure(),
      clock: systemClock,
      register: (server) => delta.register(server, options.authenticate ?? allowAnyone),
    });
    return new TestServer(delta, grpc, observer);
  }

  get target(): ChannelTarget {
    return { address: this.address };
  }

  get address(): string {
    return `http://127.0.0.1:${this.grpc.port}`;
  }

  /** As if the process had been killed. */
  kill(): void {
    this.grpc.destroy();
    this.delta.close();
  }

  [Symbol.dispose](): void {
    this.kill();
  }
}

export function newStore(): ResourceStore {
  return new ResourceStore(ZTUNNEL_TYPES);
}

/** A client that remembers everything as text, per type. */
export class TestClient {
  readonly state = new Map<string, Map<string, string>>();
  readonly updates: (TypeUpdate & { readonly typeUrl: string })[] = [];
  readonly signal = new Signal();
  readonly client: DeltaClient;
  synced = false;
  /** Awaited before an update is applied. */
  before: (update: TypeUpdate) => Promise<void> = () => Promise.resolve();
  /** Decides what to reject. */
  reject: (name: string) => string | undefined = () => undefined;

  constructor(address: string, options: Partial<DeltaClientOptions> = {}) {
    const type = (typeUrl: string, mode: "wildcard" | "on-demand") => {
      this.state.set(typeUrl, new Map());
      const onUpdate = async (update: TypeUpdate) => {
        await this.before(update);
        return this.#apply(typeUrl, update);
      };
      return { typeUrl, mode, onUpdate };
    };
    const modes =
      options.types ?? ZTUNNEL_TYPES.map((typeUrl) => ({ typeUrl, mode: "wildcard" as const }));
    this.client = new DeltaClient({
      target: () => Promise.resolve({ address }),
      metadata: () => Promise.resolve({}),
      node: { id: NODE_ID, metadata: { NODE_NAME: "node-a" } },
      clock: systemClock,
      log: memoryLog().log.scope("xds"),
      onSynced: () => {
        this.synced = true;
        this.signal.changed();
      },
      ...options,
      types: modes.map(({ typeUrl, mode }) => type(typeUrl, mode)),
    });
  }

  of(typeUrl: string): ReadonlyMap<string, string> {
    return this.state.get(typeUrl)!;
  }

  untilSynced(): Promise<void> {
    return this.signal.until(() => this.synced);
  }

  /** Resolves when the type's state has exactly these entries. */
  untilEquals(typeUrl: string, expected: Readonly<Record<string, string>>): Promise<void> {
    return this.signal.until(() => sameEntries(this.of(typeUrl), expected));
  }

  #apply(typeUrl: string, update: TypeUpdate): Rejection[] {
    const state = this.state.get(typeUrl)!;
    const rejections: Rejection[] = [];
    this.updates.push({ typeUrl, ...update });
    for (const name of update.removed) state.delete(name);
    for (const { name, value } of update.upserts) {
      const reason = this.reject(name);
      if (reason === undefined) state.set(name, new TextDecoder().decode(value));
      else rejections.push({ name, reason });
    }
    setImmediate(() => this.signal.changed());
    return rejections;
  }

  [Symbol.dispose](): void {
    this.client.close();
  }
}

export function sameEntries(
  map: ReadonlyMap<string, string>,
  expected: Readonly<Record<string, string>>,
): boolean {
  const entries = Object.entries(expected);
  return map.size === entries.length && entries.every(([key, value]) => map.get(key) === value);
}

/** A stream driven by hand. */
export class RawStream {
  readonly #client: Client;
  readonly #stream: ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
  readonly #signal = new Signal();
  readonly responses: DeltaDiscoveryResponse[] = [];
  /** "OK" or the error's details. */
  readonly ended: Promise<string>;

  constructor(target: ChannelTarget, metadata: Readonly<Record<string, string>> = {}) {
    this.#client = createClient(target);
    const method = AggregatedDiscoveryService.method.deltaAggregatedResources;
    this.#stream = callStream(this.#client, method, metadata);
    this.#stream.on("data", (response: DeltaDiscoveryResponse) => {
      this.responses.push(response);
      this.#signal.changed();
    });
    this.ended = new Promise((resolve) => {
      this.#stream.on("error", (error: Error & { details?: string }) =>
        resolve(error.details ?? error.message),
      );
      this.#stream.on("end", () => resolve("OK"));
    });
  }

  send(request: MessageInitShape<typeof DeltaDiscoveryRequestSchema>): void {
    this.#stream.write(create(DeltaDiscoveryRequestSchema, request));
  }

  /** The first request of a type. */
  open(typeUrl: string, more: Partial<SubscriptionRequest> = {}): void {
    this.send({ node: { id: NODE_ID, metadata: { NODE_NAME: "node-a" } }, typeUrl, ...more });
  }

  /** The response with this index, once it is there. */
  async response(index: number): Promise<DeltaDiscoveryResponse> {
    await this.#signal.until(() => this.responses.length > index);
    return this.responses[index]!;
  }

  ack({ typeUrl, nonce }: DeltaDiscoveryResponse): void {
    this.send({ typeUrl, responseNonce: nonce });
  }

  [Symbol.dispose](): void {
    this.#stream.cancel();
    this.#client.close();
  }
}
