// What a user of the delta xDS client supplies and gets.

import type { JsonObject } from "@bufbuild/protobuf";
import type { Clock } from "../process/clock.ts";
import type { Logger } from "../telemetry/log.ts";
import type { ChannelTarget } from "./grpc-channel.ts";

/** One response of the server, decoded no further than its envelope. Removals apply before upserts. */
export interface TypeUpdate {
  readonly upserts: readonly UpsertedResource[];
  readonly removed: readonly string[];
}

export interface UpsertedResource {
  readonly name: string;
  readonly version: string;
  readonly value: Uint8Array;
}

/** A resource the handler would not take; the others of the response count as applied. */
export interface Rejection {
  readonly name: string;
  readonly reason: string;
}

/** One subscribed type. */
export interface TypeSubscription {
  readonly typeUrl: string;
  /** wildcard: everything; on-demand: only what demand() asks for. */
  readonly mode: "wildcard" | "on-demand";
  /** Applies the update; what it rejects is reported to the server in a NACK. Never rejects. */
  readonly onUpdate: (update: TypeUpdate) => Promise<readonly Rejection[]>;
}

/** Who this client is, as the server's node id and metadata. */
export interface NodeIdentity {
  /** `ztunnel~<ip>~<pod>.<namespace>~<namespace>.svc.<domain>` */
  readonly id: string;
  readonly metadata: JsonObject;
}

/** Why a stream ended, as istio_xds_connection_terminations_total names it. */
export type TerminationReason = "ConnectionError" | "Error" | "Reconnect" | "Complete";

export interface DeltaClientOptions {
  /** Called before every connection, so that root certificates are read again. May reject. */
  readonly target: () => Promise<ChannelTarget>;
  /** Called before every connection, so that tokens are read again. May reject. */
  readonly metadata: () => Promise<Readonly<Record<string, string>>>;
  readonly node: NodeIdentity;
  /** Asked for in this order on every new stream. */
  readonly types: readonly TypeSubscription[];
  readonly clock: Clock;
  readonly log: Logger;
  /** Every wildcard type has had one response that was accepted. Called once. */
  readonly onSynced?: () => void;
  readonly onTermination?: (reason: TerminationReason) => void;
  readonly onMessage?: (typeUrl: string, bytes: number) => void;
}

/** What an on-demand request found; "refused": too many wait already. */
export type DemandResult = "present" | "absent" | "closed" | "refused";
