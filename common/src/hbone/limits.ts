// HBONE's numbers (ztunnel §1.7). The windows bound the memory that one peer can pin.

import { DEFAULT_LIMITS, type Http2Limits } from "../http2/limits.ts";

export const HBONE_PORT = 15008;

/** What HTTP2_* and POOL_* environment variables set. */
export interface HboneSettings {
  readonly streamWindowBytes: number;
  /** Four stream windows, so that a few stalled streams do not stop the others. */
  readonly connectionWindowBytes: number;
  readonly frameBytesMax: number;
}

export const DEFAULT_HBONE_SETTINGS: HboneSettings = {
  streamWindowBytes: 4 << 20,
  connectionWindowBytes: 16 << 20,
  frameBytesMax: 1 << 20,
};

export const PING_INTERVAL_MS = 10_000;
export const PING_TIMEOUT_MS = 20_000;

export const SERVER_LIMITS: Http2Limits = DEFAULT_LIMITS;
/** A client expects only answers to its own requests: short header lists. */
export const CLIENT_LIMITS: Http2Limits = {
  ...DEFAULT_LIMITS,
  headerListBytesMax: 16_384,
  streamsMax: 0,
};

/** How long a peer may take to answer a CONNECT. Istio has no bound; a lost answer would hang for ever. */
export const CONNECT_ANSWER_TIMEOUT_MS = 20_000;
