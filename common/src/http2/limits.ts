// What a peer may make us hold or do. Each bound has its reason; tests try each at and past it.

export interface Http2Limits {
  /** Sum of name + value + 32 over a header list (RFC 9113 §6.5.2). */
  readonly headerListBytesMax: number;
  /** Compressed bytes of one header block over HEADERS and all its CONTINUATIONs. */
  readonly headerBlockBytesMax: number;
  /** CONTINUATION frames after one HEADERS: an endless tail of tiny ones costs CPU, not bytes. */
  readonly continuationsMax: number;
  /** Streams the peer may have open at once. */
  readonly streamsMax: number;
  /**
   * Streams per window of RATE_WINDOW_MS that the peer resets before it was answered, or that end by a
   * reset it provoked.
   */
  readonly resetsPerWindowMax: number;
  /**
   * SETTINGS, PING, PRIORITY and empty DATA frames per window: each makes us work or answer. The empty
   * DATA that ends a stream is none of them: that is how a tunnel closes.
   */
  readonly controlFramesPerWindowMax: number;
  /** Bytes of answers (not DATA) that wait for a peer that does not read. */
  readonly controlQueueBytesMax: number;
}

export const RATE_WINDOW_MS = 10_000;

export const DEFAULT_LIMITS: Http2Limits = {
  headerListBytesMax: 65_536,
  headerBlockBytesMax: 65_536,
  continuationsMax: 16,
  streamsMax: 200,
  resetsPerWindowMax: 2_000,
  controlFramesPerWindowMax: 5_000,
  controlQueueBytesMax: 1 << 20,
};

/** Counts events in fixed windows; true while within the bound. */
export class RateLimit {
  readonly #max: number;
  #windowStartMs = 0;
  #count = 0;

  constructor(max: number) {
    this.#max = max;
  }

  admit(nowMs: number): boolean {
    if (nowMs - this.#windowStartMs >= RATE_WINDOW_MS) {
      this.#windowStartMs = nowMs;
      this.#count = 0;
    }
    return ++this.#count <= this.#max;
  }
}
