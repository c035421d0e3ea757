// One client's stream at the delta server. Per type one response is in flight at a time; what changes
// meanwhile coalesces in the WatchedType and goes out after the acknowledgement.

import type { JsonObject } from "@bufbuild/protobuf";
import { type ServerDuplexStream, status } from "@grpc/grpc-js";
import type { DeltaDiscoveryRequest } from "@ambit/api/gen/envoy/discovery_pb.ts";
import type { Clock, Timer } from "../process/clock.ts";
import { errorMessage } from "../process/errors.ts";
import type { Logger } from "../telemetry/log.ts";
import { RpcError } from "./grpc-service.ts";
import {
  ACKNOWLEDGE_TIMEOUT_MS,
  REJECTIONS_KEPT,
  RESPONSE_BYTES_MAX,
  SMALL_RESPONSE_BYTES,
} from "./limits.ts";
import { type NodeId, parseNodeId } from "./node-id.ts";
import { encodeResponse, encodeSnapshotResponse, framedBytes } from "./response-encoder.ts";
import type { ResourceStore, StoreChange } from "./resource-store.ts";
import type { SendBudget } from "./send-budget.ts";
import { ALWAYS_ALL, SENT_AFTER, type XdsResource } from "./resource-type.ts";
import { TooManyNamesError, WatchedType } from "./watched-type.ts";

/** Fewer resources are put together as fast as they would be kept as one piece. */
const WHOLE_TYPE_MIN = 100;

/** Responses are handed to gRPC already serialized. */
export type ServerStream = ServerDuplexStream<DeltaDiscoveryRequest, Buffer>;

/** The client as its first request describes it. */
export interface ClientNode extends NodeId {
  readonly id: string;
  readonly metadata: JsonObject;
}

/** Why this node may not be served to this caller; undefined when it may. */
export type NodeCheck = (node: ClientNode) => string | undefined;

/** What metrics are made of; every call is optional work of the observer. */
export interface DeltaObserver {
  connected(node: ClientNode): void;
  disconnected(node: ClientNode): void;
  sent(typeUrl: string, response: { resources: number; removed: number; bytes: number }): void;
  /** Milliseconds from the first coalesced change to its acknowledgement. */
  converged(typeUrl: string, afterMs: number): void;
  rejected(typeUrl: string, node: ClientNode, reason: string): void;
  expiredNonce(typeUrl: string): void;
  /** A response was not acknowledged in time. */
  timedOut(typeUrl: string): void;
}

export type SyncState = "SYNCED" | "STALE" | "NOT SENT" | "NACK";

export interface TypeStatus {
  /** "*" for everything. */
  readonly subscribed: "*" | "on-demand";
  readonly nonceSent: string;
  readonly nonceAcked: string;
  readonly nackReason?: string;
  readonly synced: SyncState;
  /** How many resources the client holds once synced. */
  readonly resources: number;
}

export interface SessionStatus {
  /** "pod.namespace" */
  readonly proxy: string;
  readonly type: string;
  readonly node: string;
  readonly connectedAtMs: number;
  readonly types: Readonly<Record<string, TypeStatus>>;
}

export interface SessionOptions {
  readonly id: string;
  readonly stream: ServerStream;
  readonly store: ResourceStore;
  readonly budget: SendBudget;
  readonly checkNode: NodeCheck;
  readonly clock: Clock;
  readonly log: Logger;
  readonly observer: DeltaObserver;
  /** The client has acknowledged something, or is gone. */
  readonly onProgress: () => void;
}

/** One subscribed type of one client. */
interface TypeState {
  readonly typeUrl: string;
  /** Sends what is due; one function per state, so that waiting for the budget is idempotent. */
  readonly retry: () => void;
  readonly watched: WatchedType;
  /** Taken from `watched` but too large for one response. */
  queue: XdsResource[];
  removed: string[];
  nonceSent: string;
  nonceAcked: string;
  nackReason: string | undefined;
  /** When the oldest change not yet sent was noticed, and the oldest one in flight. */
  changedAtMs: number | undefined;
  sentChangeAtMs: number | undefined;
  /** The store's epoch that the difference last taken led to, and the one that the client has reached. */
  takenEpoch: number;
  reachedEpoch: number;
  /** The last ones, oldest first. */
  readonly rejections: { readonly epoch: number; readonly reason: string }[];
  /** Of the response in flight. */
  sentBytes: number;
  timeout: Timer | undefined;
}

export class DeltaSession {
  readonly #options: SessionOptions;
  readonly #types = new Map<string, TypeState>();
  readonly #connectedAtMs: number;
  #askedUnknown = false;
  #node: ClientNode | undefined;
  #responses = 0;
  #closed = false;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#connectedAtMs = options.clock.nowMs();
  }

  /** undefined until the first request. */
  get node(): ClientNode | undefined {
    return this.#node;
  }

  /** Handles one request; a bad one ends the stream with its status. */
  onRequest(request: DeltaDiscoveryRequest): void {
    if (this.#closed) return;
    try {
      this.#node ??= this.#identify(request);
      this.#dispatch(request);
    } catch (error) {
      this.#fail(statusOf(error), errorMessage(error));
    }
  }

  /** Notes a change of the store; true when something is due to this client because of it. */
  noteChange({ typeUrl, before }: StoreChange): boolean {
    const state = this.#types.get(typeUrl);
    if (state === undefined || this.#closed) return false;
    if (!isOutstanding(state)) state.reachedEpoch = this.#options.store.epoch - 1;
    for (const [name, old] of before) state.watched.noteChange(name, old);
    if (!state.watched.pending) return false;
    state.changedAtMs ??= this.#options.clock.monotonicMs();
    return true;
  }

  /** Sends what is due; what waits for an acknowledgement goes out after that. */
  push(): void {
    for (const state of this.#types.values()) this.#send(state);
  }

  /** Ends the stream with status OK: the client reconnects at once and resumes. */
  end(): void {
    if (this.#closed) return;
    this.close();
    this.#options.stream.end();
  }

  /** The stream is over; nothing is sent any more. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#node !== undefined) this.#options.observer.disconnected(this.#node);
    const states = [...this.#types.values()];
    this.#types.clear();
    for (const state of states) {
      this.#options.budget.forget(state.retry);
      this.#settle(state);
    }
    this.#options.onProgress();
  }

  /** Whether the client has acknowledged every change of its types up to the store's epoch. */
  hasReached(epoch: number): boolean {
    const states = [...this.#types.values()];
    const reached = (state: TypeState) => !isOutstanding(state) || state.reachedEpoch >= epoch;
    return states.length > 0 && states.every(reached);
  }

  /** What the client refused of what it was sent at the epoch or later, in its own words. */
  rejectionsSince(epoch: number): string[] {
    return [...this.#types.values()].flatMap(({ rejections }) =>
      rejections.filter((it) => it.epoch >= epoch).map(({ reason }) => reason),
    );
  }

  status(): SessionStatus | undefined {
    if (this.#node === undefined) return undefined;
    const { name, namespace, type, metadata } = this.#node;
    const node = metadata["NODE_NAME"];
    return {
      proxy: `${name}.${namespace}`,
      type,
      node: typeof node === "string" ? node : "",
      connectedAtMs: this.#connectedAtMs,
      types: Object.fromEntries(
        [...this.#types].map(([typeUrl, state]) => [typeUrl, typeStatus(state)]),
      ),
    };
  }

  #identify({ node }: DeltaDiscoveryRequest): ClientNode {
    const parsed = parseNodeId(node?.id ?? "");
    if (node === undefined || parsed === undefined) {
      throw new RpcError(status.INVALID_ARGUMENT, `missing or malformed node id "${node?.id}"`);
    }
    const client = { ...parsed, id: node.id, metadata: node.metadata ?? {} };
    const refusal = this.#options.checkNode(client);
    if (refusal !== undefined) throw new RpcError(status.UNAUTHENTICATED, refusal);
    this.#options.observer.connected(client);
    return client;
  }

  #dispatch(request: DeltaDiscoveryRequest): void {
    const { typeUrl } = request;
    const state = this.#types.get(typeUrl);
    if (state === undefined) return this.#open(request);
    if (request.responseNonce !== "") this.#acknowledge(state, request);
    // Names count whatever the nonce: only acknowledgements can be stale.
    state.watched.update(request);
    this.push();
  }

  /** The first request of a type is always answered, with nothing if there is nothing. */
  #open(request: DeltaDiscoveryRequest): void {
    const { typeUrl } = request;
    const { store, log, clock } = this.#options;
    const type = store.type(typeUrl);
    if (type === undefined) {
      if (!this.#askedUnknown) log.info("a proxy asks for a type not served", { type: typeUrl });
      this.#askedUnknown = true;
      return;
    }
    const nodeName = this.#node?.metadata["NODE_NAME"];
    const state: TypeState = {
      typeUrl,
      retry: () => this.#send(state),
      watched: new WatchedType(type, request, {
        node: typeof nodeName === "string" ? nodeName : undefined,
        alwaysAll: ALWAYS_ALL.has(typeUrl),
      }),
      queue: [],
      removed: [],
      nonceSent: "",
      nonceAcked: "",
      nackReason: undefined,
      changedAtMs: clock.monotonicMs(),
      sentChangeAtMs: undefined,
      takenEpoch: -1,
      reachedEpoch: -1,
      rejections: [],
      sentBytes: 0,
      timeout: undefined,
    };
    this.#types.set(typeUrl, state);
    this.#send(state);
  }

  #acknowledge(state: TypeState, request: DeltaDiscoveryRequest): void {
    const { observer, clock, log, onProgress } = this.#options;
    const { typeUrl } = state;
    if (request.responseNonce !== state.nonceSent) {
      observer.expiredNonce(typeUrl);
      return;
    }
    if (state.nonceAcked === state.nonceSent) return;
    state.nonceAcked = state.nonceSent;
    this.#settle(state);
    state.nackReason = request.errorDetail?.message;
    if (state.queue.length === 0) state.reachedEpoch = state.takenEpoch;
    if (state.nackReason !== undefined) {
      state.rejections.push({ epoch: state.takenEpoch, reason: state.nackReason });
      if (state.rejections.length > REJECTIONS_KEPT) state.rejections.shift();
      observer.rejected(typeUrl, this.#node!, state.nackReason);
      log.warn("a proxy rejected resources", {
        proxy: this.#node!.id,
        type: typeUrl,
        reason: state.nackReason,
      });
    }
    if (state.sentChangeAtMs !== undefined) {
      observer.converged(typeUrl, clock.monotonicMs() - state.sentChangeAtMs);
      state.sentChangeAtMs = undefined;
    }
    onProgress();
  }

  /** The response in flight is acknowledged, or will never be. */
  #settle(state: TypeState): void {
    state.timeout?.cancel();
    state.timeout = undefined;
    const bytes = state.sentBytes;
    state.sentBytes = 0;
    this.#options.budget.giveBack(bytes);
  }

  /** Sends the next response of the type unless one is in flight or nothing is due. */
  #send(state: TypeState): void {
    if (this.#closed || state.nonceSent !== state.nonceAcked || this.#mustWait(state)) return;
    if (state.queue.length === 0 && state.removed.length === 0) {
      if (!state.watched.pending) return;
      const { upserts, removed } = state.watched.take();
      state.takenEpoch = this.#options.store.epoch;
      state.queue = upserts;
      state.removed = removed;
      state.sentChangeAtMs = state.changedAtMs;
      state.changedAtMs = undefined;
      const nothing = upserts.length === 0 && removed.length === 0;
      if (nothing && state.nonceSent !== "") return;
    }
    this.#respond(state);
  }

  /** Changes wait for those they build on; a first answer does not, its client is not in sync yet. */
  #mustWait({ typeUrl, nonceSent }: TypeState): boolean {
    const other = this.#types.get(SENT_AFTER.get(typeUrl) ?? "");
    return other !== undefined && nonceSent !== "" && isOutstanding(other);
  }

  #respond(state: TypeState): void {
    const { id, stream, budget, observer, clock } = this.#options;
    const { typeUrl, removed } = state;
    const whole = this.#wholeType(state);
    const { count, bytes } =
      whole === undefined
        ? prefixWithin(typeUrl, state.queue, RESPONSE_BYTES_MAX)
        : { count: state.queue.length, bytes: whole.length };
    const budgeted = bytes > SMALL_RESPONSE_BYTES ? bytes : 0;
    if (budgeted > 0 && !budget.tryTake(budgeted)) return budget.wait(state.retry);
    const upserts = state.queue.splice(0, count);
    const nonce = `${id}-${++this.#responses}`;
    const content = { typeUrl, nonce, removed };
    const message =
      whole === undefined
        ? encodeResponse({ ...content, upserts })
        : encodeSnapshotResponse(content, whole);
    state.removed = [];
    state.nonceSent = nonce;
    state.sentBytes = budgeted;
    state.timeout = clock.after(ACKNOWLEDGE_TIMEOUT_MS, () => this.#timeOut(typeUrl));
    stream.write(message);
    observer.sent(typeUrl, {
      resources: upserts.length,
      removed: removed.length,
      bytes: message.length,
    });
  }

  /** The type's resources as one piece, when exactly all of them are to be sent: to every new client. */
  #wholeType({ typeUrl, queue, takenEpoch }: TypeState): Buffer | undefined {
    const { store } = this.#options;
    const type = store.type(typeUrl);
    if (queue.length < WHOLE_TYPE_MIN || takenEpoch !== store.epoch) return undefined;
    if (type === undefined || type.size !== queue.length) return undefined;
    return type.framed.length <= RESPONSE_BYTES_MAX ? type.framed : undefined;
  }

  #timeOut(typeUrl: string): void {
    this.#options.observer.timedOut(typeUrl);
    this.#fail(status.DEADLINE_EXCEEDED, "no acknowledgement in time");
  }

  #fail(code: status, details: string): void {
    this.#options.log.warn("ending a proxy's stream", { proxy: this.#node?.id, reason: details });
    this.close();
    this.#options.stream.emit("error", { code, details });
  }
}

function statusOf(error: unknown): status {
  if (error instanceof RpcError) return error.code;
  return error instanceof TooManyNamesError ? status.RESOURCE_EXHAUSTED : status.INTERNAL;
}

/** How many of the first resources fit into `bytesMax`, at least one, and their bytes. */
function prefixWithin(
  typeUrl: string,
  resources: readonly XdsResource[],
  bytesMax: number,
): { readonly count: number; readonly bytes: number } {
  let bytes = 0;
  for (const [index, resource] of resources.entries()) {
    const next = framedBytes(typeUrl, resource);
    if (index > 0 && bytes + next > bytesMax) return { count: index, bytes };
    bytes += next;
  }
  return { count: resources.length, bytes };
}

function typeStatus(state: TypeState): TypeStatus {
  const { watched, nonceSent, nonceAcked, nackReason } = state;
  return {
    subscribed: watched.wildcard ? "*" : "on-demand",
    nonceSent,
    nonceAcked,
    ...(nackReason !== undefined && { nackReason }),
    synced: syncState(state),
    resources: watched.heldCount,
  };
}

function syncState(state: TypeState): SyncState {
  if (state.nonceSent === "") return "NOT SENT";
  if (isOutstanding(state)) return "STALE";
  return state.nackReason === undefined ? "SYNCED" : "NACK";
}

/** In flight, or still to be sent. */
function isOutstanding({ watched, queue, removed, nonceSent, nonceAcked }: TypeState): boolean {
  const queued = queue.length > 0 || removed.length > 0;
  return nonceSent !== nonceAcked || watched.pending || queued;
}
