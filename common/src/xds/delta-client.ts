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
import type { DeltaClientOptions, Rejection, TypeSubscription, TypeUpdate } from "./delta-types.ts";
import { createClient } from "./grpc-channel.ts";
import { callStream } from "./grpc-service.ts";

type Stream = ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

const RETRY_FIRST_MS = 20;
const RETRY_MAX_MS = 15_000;
/** After an end that a healthy server causes. */
const RETRY_EXPECTED_MS = 10;

export class DeltaClient {
  readonly #options: DeltaClientOptions;
  /** Name to version of what is held, per type. */
  readonly #held: ReadonlyMap<string, Map<string, string>>;
  readonly #unsynced: Set<string>;
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
    this.#unsynced = new Set(options.types.map(({ typeUrl }) => typeUrl));
    void this.#connect();
  }

  close(): void {
    this.#closed = true;
    this.#retry?.cancel();
    this.#stream?.cancel();
    this.#client?.close();
  }

  async #connect(): Promise<void> {
    const { log } = this.#options;
    try {
      const [target, metadata] = await Promise.all([
        this.#options.target(),
        this.#options.metadata(),
      ]);
      if (this.#closed) return;
      this.#client?.close();
      this.#client = createClient(target);
      const method = AggregatedDiscoveryService.method.deltaAggregatedResources;
      const stream = callStream(this.#client, method, metadata);
      this.#stream = stream;
      stream.on("data", (response: DeltaDiscoveryResponse) => {
        this.#work = this.#work.then(() => this.#onResponse(stream, response));
      });
      stream.on("error", (error: ServiceError) => this.#onEnd(stream, error));
      stream.on("end", () => this.#onEnd(stream, undefined));
      for (const { typeUrl } of this.#options.types) stream.write(this.#initialRequest(typeUrl));
    } catch (error) {
      log.warn("cannot reach the control plane", { error: errorMessage(error) });
      this.#options.onTermination?.("ConnectionError");
      this.#retryAfter(this.#backoff());
    }
  }

  /** Empty lists are the legacy wildcard: everything of the type. */
  #initialRequest(typeUrl: string): DeltaDiscoveryRequest {
    const { node } = this.#options;
    const initialResourceVersions = Object.fromEntries(this.#held.get(typeUrl)!);
    return create(DeltaDiscoveryRequestSchema, { node, typeUrl, initialResourceVersions });
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
    const message = rejected.map(({ name, reason }) => `${name}: ${reason}`).join("; ");
    if (stream !== this.#stream) return;
    stream.write(
      create(DeltaDiscoveryRequestSchema, {
        typeUrl,
        responseNonce: nonce,
        ...(rejected.length > 0 && { errorDetail: { message } }),
      }),
    );
    if (rejected.length > 0)
      this.#options.log.warn("rejected resources", { type: typeUrl, error: message });
    else this.#markSynced(typeUrl);
  }

  async #apply(type: TypeSubscription, update: TypeUpdate): Promise<readonly Rejection[]> {
    const rejected = await type.onUpdate(update);
    const refused = new Set(rejected.map(({ name }) => name));
    const held = this.#held.get(type.typeUrl)!;
    for (const name of update.removed) held.delete(name);
    for (const { name, version } of update.upserts) if (!refused.has(name)) held.set(name, version);
    return rejected;
  }

  #markSynced(typeUrl: string): void {
    if (this.#unsynced.delete(typeUrl) && this.#unsynced.size === 0) this.#options.onSynced?.();
  }

  #onEnd(stream: Stream, error: ServiceError | undefined): void {
    if (this.#closed || stream !== this.#stream) return;
    this.#stream = undefined;
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
