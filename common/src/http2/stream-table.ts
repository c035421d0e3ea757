// The streams of one connection by id, and which ids were ever used: ids tell a frame that comes late
// from one that makes no sense (RFC 9113 §5.1.1).

import { IdMap } from "../collections/id-map.ts";
import { ConnectionError, ErrorCode, STREAM_ID_MAX, WINDOW_MAX } from "./protocol.ts";
import type { Http2Stream } from "./stream.ts";

/** Streams we reset whose late frames are still ignored; beyond it an old one gets another reset. */
const RECENT_RESETS_MAX = 256;

export class StreamTable {
  readonly #streams = new IdMap<Http2Stream>();
  readonly #ownParity: 0 | 1;
  #nextOwnId: number;
  #lastPeerId = 0;
  /** In order of reset. */
  readonly #resetByUs = new Set<number>();

  /** Clients open odd streams, servers even ones. */
  constructor(role: "client" | "server") {
    this.#ownParity = role === "client" ? 1 : 0;
    this.#nextOwnId = role === "client" ? 1 : 2;
  }

  get size(): number {
    return this.#streams.size;
  }

  /** The highest id the peer opened; 0 when it opened none. */
  get lastPeerId(): number {
    return this.#lastPeerId;
  }

  /** All ids of ours are used: a new connection must be made. */
  get exhausted(): boolean {
    return this.#nextOwnId > STREAM_ID_MAX;
  }

  get(id: number): Http2Stream | undefined {
    return this.#streams.get(id);
  }

  /** All of them now: they may end meanwhile. */
  values(): Http2Stream[] {
    return this.#streams.values();
  }

  takeOwnId(): number {
    const id = this.#nextOwnId;
    this.#nextOwnId += 2;
    return id;
  }

  /** Notes an id the peer opens; false when it may not: ours by parity, or not above all before. */
  takePeerId(id: number): boolean {
    if (this.isOwn(id) || id <= this.#lastPeerId) return false;
    this.#lastPeerId = id;
    return true;
  }

  isOwn(id: number): boolean {
    return id % 2 === this.#ownParity;
  }

  /** Never opened by either side. */
  isIdle(id: number): boolean {
    return id === 0 || (this.isOwn(id) ? id >= this.#nextOwnId : id > this.#lastPeerId);
  }

  /** We reset it: what the peer sent before it knew is to be ignored (RFC 9113 §5.1). */
  wasResetByUs(id: number): boolean {
    return this.#resetByUs.has(id);
  }

  noteReset(id: number): void {
    this.#resetByUs.add(id);
    if (this.#resetByUs.size <= RECENT_RESETS_MAX) return;
    const [oldest] = this.#resetByUs;
    this.#resetByUs.delete(oldest!);
  }

  /** The peer changed its initial window (RFC 9113 §6.9.2). Throws ConnectionError on overflow. */
  resizeSendWindows(deltaBytes: number): void {
    for (const stream of this.#streams.values()) {
      stream.sendWindowBytes += deltaBytes;
      if (stream.sendWindowBytes <= WINDOW_MAX) continue;
      throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "stream window overflow by SETTINGS");
    }
  }

  add(stream: Http2Stream): void {
    this.#streams.set(stream.id, stream);
  }

  delete(id: number): void {
    this.#streams.delete(id);
  }

  clear(): void {
    this.#streams.clear();
  }
}
