// A peer that writes HTTP/2 frames by hand, opposite a connection under test: over an in-memory pair
// of sockets, with a clock of its own. It keeps every frame it got and every event of the other side.

import { type Duplex, duplexPair } from "node:stream";
import { Http2Connection } from "../http2/connection.ts";
import type { ConnectionOptions } from "../http2/connection-options.ts";
import { hpackEncode } from "../http2/hpack-encoder.ts";
import type { HeaderField } from "../http2/hpack-table.ts";
import { DEFAULT_LIMITS, type Http2Limits } from "../http2/limits.ts";
import { CLIENT_PREFACE, errorCodeName, Flag, FrameType } from "../http2/protocol.ts";
import type { Http2Stream, StreamListener } from "../http2/stream.ts";
import { asByteSocket } from "../net/net-byte-socket.ts";
import { FakeClock } from "./fake-clock.ts";

export interface Frame {
  readonly type: keyof typeof FrameType;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

/** One frame as bytes. */
export function frame(
  type: keyof typeof FrameType,
  flags: number,
  streamId: number,
  payload: Uint8Array = Buffer.alloc(0),
): Buffer {
  const bytes = Buffer.alloc(9 + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = FrameType[type];
  bytes[4] = flags;
  bytes.writeUInt32BE(streamId, 5);
  bytes.set(payload, 9);
  return bytes;
}

/** A payload of one 32-bit number: RST_STREAM, WINDOW_UPDATE. */
export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** A SETTINGS payload. */
export function settings(...entries: readonly (readonly [id: number, value: number])[]): Buffer {
  return Buffer.concat(
    entries.map(([id, value]) => Buffer.concat([Buffer.from([0, id]), uint32(value)])),
  );
}

const REQUEST: readonly HeaderField[] = [
  { name: ":method", value: "CONNECT" },
  { name: ":authority", value: "10.0.0.1:80" },
];

/** HEADERS that open a stream. */
export function requestFrame(streamId: number, endStream = false): Buffer {
  const flags = Flag.END_HEADERS | (endStream ? Flag.END_STREAM : 0);
  return frame("HEADERS", flags, streamId, hpackEncode(REQUEST));
}

/** What happened on one stream of the connection under test, in order. */
export class RecordedStream implements StreamListener {
  readonly events: string[] = [];
  readonly stream: Http2Stream;
  bytes = 0;
  /** Credit is given for what comes. */
  consumes = true;

  constructor(stream: Http2Stream) {
    this.stream = stream;
    stream.listener = this;
  }

  onHeaders(fields: readonly HeaderField[]): void {
    this.events.push(`headers ${fields.map(({ value }) => value).join(" ")}`);
  }
  onData(slice: Buffer): void {
    this.bytes += slice.length;
    if (this.consumes) this.stream.consumed(slice.length);
  }
  onEnd(): void {
    this.events.push("end");
  }
  onAbort(code: number): void {
    this.events.push(`abort ${errorCodeName(code)}`);
  }
  onWritable(): void {
    this.events.push("writable");
  }
}

export interface PeerOptions extends Partial<Omit<ConnectionOptions, "limits">> {
  readonly limits?: Partial<Http2Limits>;
}

export class Http2Peer {
  readonly clock = new FakeClock();
  readonly connection: Http2Connection;
  readonly frames: Frame[] = [];
  /** Streams that this peer opened, as the connection saw them. */
  readonly streams: RecordedStream[] = [];
  goAways = 0;
  closedBecause: string | undefined;
  readonly socket: Duplex;
  #unread: Buffer = Buffer.alloc(0);

  /** `options.role` is the connection's, not the peer's. */
  constructor({ limits, ...options }: PeerOptions = {}) {
    const [near, far] = duplexPair();
    this.socket = far;
    far.on("data", (bytes: Buffer) => this.#read(bytes));
    far.on("error", () => undefined);
    this.connection = new Http2Connection(
      asByteSocket(near),
      {
        role: "server",
        streamWindowBytes: 65_535,
        connectionWindowBytes: 1 << 20,
        frameBytesMax: 16_384,
        limits: { ...DEFAULT_LIMITS, ...limits },
        clock: this.clock,
        pingIntervalMs: 1_000_000,
        pingTimeoutMs: 20_000,
        ...options,
      },
      {
        onStream: (stream) => void this.streams.push(new RecordedStream(stream)),
        onGoAway: () => void this.goAways++,
        onClose: (reason) => void (this.closedBecause = reason),
      },
    );
  }

  /** Says hello: the preface where the connection is a server, and SETTINGS. */
  static async greeted(options: PeerOptions = {}): Promise<Http2Peer> {
    const peer = new Http2Peer(options);
    if (options.role !== "client") peer.socket.write(CLIENT_PREFACE);
    await peer.send(frame("SETTINGS", 0, 0));
    peer.frames.length = 0;
    return peer;
  }

  /** Writes bytes and waits until the connection has dealt with them and its answers are here. */
  async send(...bytes: readonly Buffer[]): Promise<void> {
    this.socket.write(Buffer.concat(bytes));
    await this.settled();
  }

  /** In memory nothing takes longer than a few turns of the event loop. */
  async settled(): Promise<void> {
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
  }

  /** The frames that came, as `TYPE streamId detail`: an error code, an increment or a length. */
  get seen(): string[] {
    return this.frames.map(describeFrame);
  }

  #read(bytes: Buffer): void {
    this.#unread = Buffer.concat([this.#unread, bytes]);
    if (this.#unread.subarray(0, CLIENT_PREFACE.length).equals(CLIENT_PREFACE)) {
      this.#unread = this.#unread.subarray(CLIENT_PREFACE.length);
    }
    while (this.#unread.length >= 9) {
      const end = 9 + this.#unread.readUIntBE(0, 3);
      if (this.#unread.length < end) return;
      const type = FRAME_NAMES[this.#unread[3]!]!;
      const [flags, streamId] = [this.#unread[4]!, this.#unread.readUInt32BE(5)];
      this.frames.push({ type, flags, streamId, payload: this.#unread.subarray(9, end) });
      this.#unread = this.#unread.subarray(end);
    }
  }
}

const FRAME_NAMES = Object.keys(FrameType) as (keyof typeof FrameType)[];

function describeFrame({ type, flags, streamId, payload }: Frame): string {
  if (type === "RST_STREAM") return `${type} ${streamId} ${errorCodeName(payload.readUInt32BE(0))}`;
  if (type === "WINDOW_UPDATE") return `${type} ${streamId} ${payload.readUInt32BE(0)}`;
  if (type === "DATA") {
    return `${type} ${streamId} ${payload.length}${flags & Flag.END_STREAM ? " end" : ""}`;
  }
  if (type === "GOAWAY") {
    return `${type} ${payload.readUInt32BE(0)} ${errorCodeName(payload.readUInt32BE(4))}`;
  }
  const ack = (type === "SETTINGS" || type === "PING") && flags & Flag.ACK;
  return `${type} ${streamId}${ack ? " ack" : ""}`;
}
