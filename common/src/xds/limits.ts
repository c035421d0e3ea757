// Bounds of the delta xDS server, each with its reason.

/** Connected proxies; one istiod serves some hundreds of nodes, ten thousand is far past its CPU. */
export const SESSIONS_MAX = 10_000;

/** Names one client may subscribe to in one type: more than any node talks to. */
export const SUBSCRIBED_NAMES_MAX = 100_000;

/**
 * One response. Clients take 200 MiB; half of it leaves room for the envelope. A response is not cut
 * below this, because clients count themselves synced after the first one of a type.
 */
export const RESPONSE_BYTES_MAX = 100 * 1024 * 1024;

/** One request: a reconnecting client lists every resource it holds, some 100 bytes each. */
export const REQUEST_BYTES_MAX = 64 * 1024 * 1024;

/** Streams are ended at about this age, so that clients spread over replicas again (Istio's 30 m). */
export const STREAM_AGE_MS_MAX = 30 * 60_000;

/** Clients that a change is pushed to in one turn of the event loop: some milliseconds (Istio's 100). */
export const PUSHES_PER_TURN = 100;

/** Share of the age that is random, so that streams opened together do not end together. */
export const STREAM_AGE_JITTER = 0.1;

/** A client that says nothing after opening its stream is ended by then. */
export const FIRST_REQUEST_TIMEOUT_MS = 30_000;

/**
 * Unacknowledged response bytes over all clients. A full push of ten thousand pods is about 4 MiB and lies
 * in memory twice while it is sent: some thirty proxies may be in the middle of one.
 */
export const UNACKNOWLEDGED_BYTES_MAX = 128 * 1024 * 1024;

/** Responses up to this size wait for nobody: peers that are slow with large ones do not delay changes. */
export const SMALL_RESPONSE_BYTES = 16 * 1024;

/** A client that has not acknowledged a response by then is ended; it reconnects if it lives. */
export const ACKNOWLEDGE_TIMEOUT_MS = 60_000;

/** Refusals remembered of one client and type: enough to say which resource is meant by the last ones. */
export const REJECTIONS_KEPT = 8;
