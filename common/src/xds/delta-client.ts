// The delta xDS client (ztunnel §6.1): one stream for all types, acknowledgements, reconnection with
// what is held already. Holds names and versions, never resources.

import { create } from "@bufbuild/protobuf";
import { type Client, type ClientDuplexStream, type ServiceError, status } from "@grpc/grpc-js";
import {
  AggregatedDiscoveryService,
  type DeltaDiscoveryRequest,
  DeltaDiscoveryRequestSchema,
  type DeltaDiscoveryResponse,
} from "@ambit/api/gen/envoy/discovery_pb.ts";
import type { Timer } from "../process/clock.ts";
import { errorMessage } from "../process/errors.ts";
import { Demands } from "./demands.ts";
import type {
  DeltaClientOptions,
  DemandResult,
  Rejection,
  TypeSubscription,
  TypeUpdate,
} from "./delta-types.ts";
import { connect, createClient } from "./grpc-channel.ts";
import { callStream } from "./grpc-service.ts";

type Stream = ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

const RETRY_FIRST_MS = 20;
const RETRY_MAX_MS = 15_000;
/** After an end that a healthy server causes. */
const RETRY_EXPECTED_MS = 10;
/** A control plane that takes longer to accept a connection is as good as gone. */
const CONNECT_TIMEOUT_MS = 10_000;
/** The name that stands for all of a type. */
const EVERYTHING = "*";

export class DeltaClient {
  readonly #options: DeltaClientOptions;
  /** Name to version of what is held, per type. */
  readonly #held: ReadonlyMap<string, Map<string, string>>;
  readonly #unsynced: Set<string>;
  readonly #demands = new Map<string, Demands>();
  #client: Client | undefined;
  #stream: Stream | undefined;
  #retry: Timer | undefined;
  #retryMs = 0;
  #closed = false;
  /** Responses are applied one after the other. */
  #work: Promise<void> = Promise.resolve();

  constructor(options: DeltaClientOptions) {
    this.#options = options;
    this.#held = new Map(options.types.map(({ typeUrl }) => [typeUrl, new Map<string, string>()]));
    const wildcard = options.types.filter(({ mode }) => mode === "wildcard");
    this.#unsynced = new Set(wildcard.map(({ typeUrl }) => typeUrl));
    for (const { typeUrl, mode } of options.types) {
      if (mode === "on-demand") this.#demands.set(typeUrl, new Demands());
    }
    void this.#connect();
  }

  /**
   * Asks for one name of an on-demand type and waits for the server's answer, across reconnects.
   * Throws when the type is not on demand. Rejects nothing: "closed" when the client is closed first.
   */
  demand(typeUrl: string, name: string): Promise<DemandResult> {
    const demands = this.#demands.get(typeUrl);
    if (demands === undefined) throw new Error(`${typeUrl} is not subscribed on demand`);
    if (this.#closed) return Promise.resolve("closed");
    if (this.#held.get(typeUrl)!.has(name)) return Promise.resolve("present");
    const { first, result } = demands.wait(name);
    if (first) {
      this.#stream?.write(
        create(DeltaDiscoveryRequestSchema, { typeUrl, resourceNamesSubscribe: [name] }),
      );
    }
    return result;
  }

  close(): void {
    this.#closed = true;
    for (const demands of this.#demands.values()) demands.close();
    this.#retry?.cancel();
    this.#stream?.cancel();
    this.#client?.close();
  }

  async #connect(): Promise<void> {
    try {
      const [target, metadata] = await Promise.all([
        this.#options.target(),
        this.#options.metadata(),
      ]);
      if (this.#closed) return;
      const client = createClient(target);
      this.#client = client;
      await connect(client, CONNECT_TIMEOUT_MS);
      // What an earlier stream brought must be applied before we say what we hold.
      await this.#work;
      if (!this.#closed) this.#openStream(client, metadata);
    } catch (error) {
      if (this.#closed) return;
      this.#options.log.warn("cannot reach the control plane", { error: errorMessage(error) });
      this.#client?.close();
      this.#options.onTermination?.("ConnectionError");
      this.#retryAfter(this.#backoff());
    }
  }

  #openStream(client: Client, metadata: Readonly<Record<string, string>>): void {
    const method = AggregatedDiscoveryService.method.deltaAggregatedResources;
    const stream: Stream = callStream(client, method, metadata);
    this.#stream = stream;
    for (const demands of this.#demands.values()) demands.forgetAbsent();
    stream.on("data", (response: DeltaDiscoveryResponse) => {
      // One at a time: what is not applied yet stays with the server.
      stream.pause();
      this.#work = this.#onResponse(stream, response).finally(() => stream.resume());
    });
    stream.on("error", (error: ServiceError) => this.#onEnd(stream, error));
    stream.on("end", () => this.#onEnd(stream, undefined));
    for (const type of this.#options.types) stream.write(this.#initialRequest(type));
  }

  /**
   * Empty lists are the legacy wildcard: everything of the type. On demand, "*" both subscribed and
   * unsubscribed means nothing yet; what is held and what is awaited is declared in the versions.
   */
  #initialRequest({ typeUrl, mode }: TypeSubscription): DeltaDiscoveryRequest {
    const { node } = this.#options;
    const awaited = this.#demands.get(typeUrl)?.names ?? [];
    return create(DeltaDiscoveryRequestSchema, {
      node,
      typeUrl,
      initialResourceVersions: Object.fromEntries([
        ...awaited.map((name): [string, string] => [name, ""]),
        ...this.#held.get(typeUrl)!,
      ]),
      ...(mode === "on-demand" && {
        resourceNamesSubscribe: [EVERYTHING],
        resourceNamesUnsubscribe: [EVERYTHING],
      }),
    });
  }

  async #onResponse(stream: Stream, response: DeltaDiscoveryResponse): Promise<void> {
    if (this.#closed || stream !== this.#stream) return;
    const { typeUrl, nonce } = response;
    this.#retryMs = 0;
    const type = this.#options.types.find((candidate) => candidate.typeUrl === typeUrl);
    if (type === undefined) {
      this.#options.log.warn("resources of an unknown type", { type: typeUrl });
      stream.write(create(DeltaDiscoveryRequestSchema, { typeUrl, responseNonce: nonce }));
      return;
    }
    const update = updateOf(response);
    const bytes = update.upserts.reduce((sum, { value }) => sum + value.length, 0);
    this.#options.onMessage?.(typeUrl, bytes);
    const rejected = await this.#apply(type, update);
    const unwanted = this.#demands.get(typeUrl)?.answer(response, rejected) ?? [];
    const message = rejected.map(({ name, reason }) => `${name}: ${reason}`).join("; ");
    if (stream !== this.#stream) return;
    stream.write(
      create(DeltaDiscoveryRequestSchema, {
        typeUrl,
        responseNonce: nonce,
        resourceNamesUnsubscribe: unwanted,
        ...(rejected.length > 0 && { errorDetail: { message } }),
      }),
    );
    if (rejected.length > 0)
      this.#options.log.warn("rejected resources", { type: typeUrl, error: message });
    else this.#markSynced(typeUrl);
  }

  async #apply(type: TypeSubscription, update: TypeUpdate): Promise<readonly Rejection[]> {
    const rejected = await this.#tryUpdate(type, update);
    const refused = new Set(rejected.map(({ name }) => name));
    const held = this.#held.get(type.typeUrl)!;
    for (const name of update.removed) held.delete(name);
    for (const { name, version } of update.upserts) if (!refused.has(name)) held.set(name, version);
    return rejected;
  }

  /** A handler that breaks its promise not to reject has applied nothing we may rely on. */
  async #tryUpdate(type: TypeSubscription, update: TypeUpdate): Promise<readonly Rejection[]> {
    try {
      return await type.onUpdate(update);
    } catch (error) {
      const reason = errorMessage(error);
      this.#options.log.error("applying an update failed", { type: type.typeUrl, error: reason });
      return update.upserts.map(({ name }) => ({ name, reason }));
    }
  }

  #markSynced(typeUrl: string): void {
    if (this.#unsynced.delete(typeUrl) && this.#unsynced.size === 0) this.#options.onSynced?.();
  }

  #onEnd(stream: Stream, error: ServiceError | undefined): void {
    if (this.#closed || stream !== this.#stream) return;
    this.#stream = undefined;
    this.#client?.close();
    if (error === undefined) {
      this.#options.onTermination?.("Complete");
      this.#retryAfter(RETRY_EXPECTED_MS);
    } else if (isExpected(error)) {
      this.#options.log.debug("control plane stream ended, reconnecting", { error: error.details });
      this.#options.onTermination?.("Reconnect");
      this.#retryMs = 0;
      this.#retryAfter(RETRY_EXPECTED_MS);
    } else {
      this.#options.log.warn("control plane stream failed", { error: error.details });
      this.#options.onTermination?.(
        error.code === status.UNAVAILABLE ? "ConnectionError" : "Error",
      );
      this.#retryAfter(this.#backoff());
    }
  }

  #backoff(): number {
    this.#retryMs =
      this.#retryMs === 0 ? RETRY_FIRST_MS : Math.min(this.#retryMs * 2, RETRY_MAX_MS);
    return this.#retryMs;
  }

  #retryAfter(delayMs: number): void {
    if (this.#closed) return;
    this.#retry?.cancel();
    this.#retry = this.#options.clock.after(delayMs, () => void this.#connect());
  }
}

/** Ends that a healthy control plane causes: connection age, restarts (ztunnel §6.1). */
function isExpected({ code, details }: ServiceError): boolean {
  if (code === status.UNKNOWN || code === status.CANCELLED || code === status.DEADLINE_EXCEEDED)
    return true;
  return code === status.UNAVAILABLE && /transport is closing|received prior goaway/i.test(details);
}

function updateOf(response: DeltaDiscoveryResponse): TypeUpdate {
  return {
    upserts: response.resources.map(({ name, version, resource }) => ({
      name,
      version,
      value: resource?.value ?? new Uint8Array(0),
    })),
    removed: response.removedResources,
  };
}
