// One HTTP/2 connection over any ByteSocket, either role: framing, HPACK, settings, flow control,
// stream states, PING, GOAWAY and the limits that keep a hostile peer cheap (RFC 9113).
// Owns its streams. Knows nothing of what they carry.

import type { ConnectionListener, ConnectionOptions } from "./connection-options.ts";
import { checkFrame } from "./frame-rules.ts";
import { FrameParser, type FrameHandler } from "./frame-parser.ts";
import { FrameWriter } from "./frame-writer.ts";
import { type DecodedHeaders, HeaderBlocks } from "./header-blocks.ts";
import { hpackEncode } from "./hpack-encoder.ts";
import { Keepalive } from "./keepalive.ts";
import type { ByteSocket, ByteSocketHandler } from "../net/byte-socket.ts";
import type { HeaderField } from "./hpack-table.ts";
import { PeerBudget } from "./peer-budget.ts";
import { PrefaceCheck } from "./preface.ts";
import {
  CLIENT_PREFACE,
  ConnectionError,
  ErrorCode,
  errorCodeName,
  Flag,
  FrameType,
  INITIAL_WINDOW_BYTES,
  STREAM_ID_MAX,
  StreamError,
  WINDOW_MAX,
} from "./protocol.ts";
import { applySettings, INITIAL_SETTINGS, ownSettings, type Settings } from "./settings.ts";
import { Http2Stream } from "./stream.ts";
import { StreamTable } from "./stream-table.ts";

/** How long a closing connection may take to hand its last bytes to a peer that does not read. */
const LINGER_MS = 1000;
const PING_PAYLOAD = Buffer.alloc(8);
/** RFC 9113 §6.8: the id that announces a shutdown without refusing anything yet. */
const GRACEFUL_LAST_ID = STREAM_ID_MAX;

export class Http2Connection implements FrameHandler {
  readonly streamWindowBytes: number;
  readonly #socket: ByteSocket;
  readonly #options: ConnectionOptions;
  readonly #listener: ConnectionListener;
  readonly #writer: FrameWriter;
  readonly #parser: FrameParser;
  readonly #headerBlocks: HeaderBlocks;
  readonly #streams: StreamTable;
  readonly #budget: PeerBudget;
  readonly #preface: PrefaceCheck;
  #peer: Settings = INITIAL_SETTINGS;
  #settingsSeen = false;
  #receiveWindowBytes: number;
  #uncreditedBytes = 0;
  /** Bytes the peer still lets the whole connection send. */
  sendWindowBytes = INITIAL_WINDOW_BYTES;
  #goAwaySent = false;
  /** The last stream id was announced: later ones are refused. */
  #goAwayFinal = false;
  #goAwayReceived = false;
  #closeReason: string | undefined;
  #blockedStreams = false;
  /** Whose DATA frame is being read; undefined when that stream is gone. */
  #dataStream: Http2Stream | undefined;
  readonly #keepalive: Keepalive;

  constructor(socket: ByteSocket, options: ConnectionOptions, listener: ConnectionListener) {
    this.#socket = socket;
    this.#options = options;
    this.#listener = listener;
    this.streamWindowBytes = options.streamWindowBytes;
    this.#receiveWindowBytes = options.connectionWindowBytes;
    this.#writer = new FrameWriter(
      socket,
      () => this.#streams.size,
      () => this.#onRoom(),
    );
    this.#parser = new FrameParser(this, options.frameBytesMax);
    this.#headerBlocks = new HeaderBlocks(options.limits);
    this.#streams = new StreamTable(options.role);
    this.#budget = new PeerBudget(options.limits, options.clock);
    this.#preface = new PrefaceCheck(options.role);
    this.#start();
    this.#keepalive = new Keepalive({
      clock: options.clock,
      intervalMs: options.pingIntervalMs,
      timeoutMs: options.pingTimeoutMs,
      sendPing: () => this.#writer.control(FrameType.PING, 0, 0, PING_PAYLOAD),
      onDead: () => {
        this.destroy(ErrorCode.NO_ERROR, "the peer does not answer pings");
        this.#socket.destroy();
      },
    });
  }

  get activeStreams(): number {
    return this.#streams.size;
  }

  get closed(): boolean {
    return this.#closeReason !== undefined;
  }

  /** Why the connection is over, for people; undefined while it is not. */
  get closeReason(): string | undefined {
    return this.#closeReason;
  }

  /** No new stream may be opened: a GOAWAY went either way, or the connection is over. */
  get goingAway(): boolean {
    return this.closed || this.#goAwayReceived || this.#goAwaySent;
  }

  /** The peer's bound on our streams; undefined until it says one. */
  get peerStreamsMax(): number | undefined {
    return this.#peer.concurrentStreamsMax;
  }

  /** The peer takes DATA behind a CONNECT that it has not answered yet. */
  get peerTakesEarlyData(): boolean {
    return this.#peer.earlyConnectData;
  }

  get frameBytesMax(): number {
    return Math.min(this.#peer.frameBytesMax, this.#options.frameBytesMax);
  }

  /** Opens a stream and sends its head. Throws when the connection takes no more streams. */
  request(fields: readonly HeaderField[], endStream: boolean): Http2Stream {
    if (this.goingAway || this.#streams.exhausted) {
      throw new ConnectionError(ErrorCode.REFUSED_STREAM, "the connection takes no more streams");
    }
    const stream = this.#addStream(this.#streams.takeOwnId());
    stream.sendHeaders(fields, endStream);
    return stream;
  }

  /** Announces shutdown: streams in flight go on, new ones are refused (double GOAWAY, §6.8). */
  drain(): void {
    if (this.closed || this.#goAwaySent) return;
    this.#goAwaySent = true;
    this.#writer.goAway(GRACEFUL_LAST_ID, ErrorCode.NO_ERROR);
    this.#writer.control(FrameType.PING, 0, 0, PING_PAYLOAD);
    if (this.#options.role === "server") return;
    this.#goAwayFinal = true;
    this.#closeWhenIdle();
  }

  /** Ends the connection at once with a GOAWAY; every stream aborts. */
  destroy(code: number = ErrorCode.NO_ERROR, reason = "closed"): void {
    if (this.closed) return;
    this.#writer.goAway(this.#streams.lastPeerId, code);
    this.#finish(reason, code);
    this.#options.clock.after(LINGER_MS, () => this.#socket.destroy());
    this.#writer.finish();
  }

  // What streams call.

  writeHeaders(stream: Http2Stream, fields: readonly HeaderField[], endStream: boolean): void {
    this.#writer.headers(stream.id, hpackEncode(fields), endStream, this.frameBytesMax);
  }

  writeData(stream: Http2Stream, payload: Buffer): boolean {
    stream.sendWindowBytes -= payload.length;
    this.sendWindowBytes -= payload.length;
    const open = this.#writer.data(stream.id, payload);
    if (!open) this.#blockedStreams = true;
    return open;
  }

  writeEnd(stream: Http2Stream): void {
    this.#writer.control(FrameType.DATA, Flag.END_STREAM, stream.id);
  }

  writeWindowUpdate(streamId: number, bytes: number): void {
    this.#writer.control32(FrameType.WINDOW_UPDATE, streamId, bytes);
  }

  /** Gives the peer connection-level credit for bytes a listener has finished with. */
  credit(bytes: number): void {
    this.#uncreditedBytes += bytes;
    if (this.closed || this.#uncreditedBytes * 2 < this.#options.connectionWindowBytes) return;
    this.#receiveWindowBytes += this.#uncreditedBytes;
    this.writeWindowUpdate(0, this.#uncreditedBytes);
    this.#uncreditedBytes = 0;
  }

  resetStream(stream: Http2Stream, code: number): void {
    this.#streams.noteReset(stream.id);
    this.#writer.control32(FrameType.RST_STREAM, stream.id, code);
    this.forget(stream);
  }

  forget(stream: Http2Stream): void {
    stream.closed = true;
    this.#streams.delete(stream.id);
    if (this.#goAwayFinal || this.#goAwayReceived) this.#closeWhenIdle();
  }

  // Reading.

  #start(): void {
    const { role, connectionWindowBytes } = this.#options;
    if (role === "client") this.#writer.raw(CLIENT_PREFACE);
    this.#writer.control(FrameType.SETTINGS, 0, 0, ownSettings(this.#options));
    this.writeWindowUpdate(0, connectionWindowBytes - INITIAL_WINDOW_BYTES);
    const handler: ByteSocketHandler = {
      onBytes: (bytes) => this.#onRead(bytes),
      onEnd: () => this.#finish("the peer closed the connection"),
      onWritable: () => this.#writer.onWritable(),
      onClose: (error) => this.#finish(error?.message ?? "the connection was cut"),
    };
    this.#socket.handler = handler;
    this.#socket.resume();
  }

  #onRead(chunk: Buffer): void {
    if (this.closed) return;
    try {
      this.#parser.push(this.#preface.strip(chunk));
    } catch (error) {
      this.#fail(error);
    }
  }

  onDataStart(streamId: number, length: number, endStream: boolean): void {
    this.#expectNoContinuation();
    this.#receiveWindowBytes -= length;
    if (this.#receiveWindowBytes < 0) {
      throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "connection window exceeded");
    }
    if (length === 0 && !endStream) this.#admitControl();
    const stream = this.#streams.get(streamId);
    this.#dataStream = stream;
    if (stream === undefined) return this.#onLateData(streamId, length);
    stream.receiveWindowBytes -= length;
    if (stream.remoteEnded) this.#streamError(stream, ErrorCode.STREAM_CLOSED);
    else if (stream.receiveWindowBytes < 0) {
      this.#streamError(stream, ErrorCode.FLOW_CONTROL_ERROR);
    }
  }

  /** DATA of a stream that is gone: after our reset it is ignored, after its end it is an error. */
  #onLateData(streamId: number, length: number): void {
    this.#expectKnown(streamId);
    this.credit(length);
    if (!this.#streams.wasResetByUs(streamId)) this.#refuse(streamId, ErrorCode.STREAM_CLOSED);
  }

  onData(slice: Buffer, more: boolean): void {
    const stream = this.#dataStream;
    if (stream === undefined) return;
    if (!stream.closed && !stream.countBody(slice.length)) {
      this.#streamError(stream, ErrorCode.PROTOCOL_ERROR);
    }
    if (stream.closed || stream.listener === undefined) stream.consumed(slice.length);
    else stream.listener.onData(slice, more);
  }

  onDataEnd(endStream: boolean): void {
    if (endStream && this.#dataStream !== undefined) this.#endRemotely(this.#dataStream);
  }

  onFrame(type: number, flags: number, streamId: number, payload: Buffer): void {
    try {
      this.#dispatch(type, flags, streamId, payload);
    } catch (error) {
      if (!(error instanceof StreamError)) throw error;
      this.#refuse(error.streamId, error.code);
    }
  }

  #dispatch(type: number, flags: number, streamId: number, payload: Buffer): void {
    if (!this.#settingsSeen && type !== FrameType.SETTINGS) {
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS");
    }
    if (type !== FrameType.CONTINUATION) this.#expectNoContinuation();
    checkFrame(type, streamId, payload.length);
    switch (type) {
      case FrameType.HEADERS:
        return this.#onBlock(this.#headerBlocks.headers(flags, streamId, payload));
      case FrameType.CONTINUATION:
        return this.#onBlock(this.#headerBlocks.continuation(flags, streamId, payload));
      case FrameType.SETTINGS:
        return this.#onSettings(flags, payload);
      case FrameType.WINDOW_UPDATE:
        return this.#onWindowUpdate(streamId, payload);
      case FrameType.RST_STREAM:
        return this.#onReset(streamId, payload);
      case FrameType.PING:
        return this.#onPing(flags, payload);
      case FrameType.GOAWAY:
        return this.#onGoAway(payload);
      case FrameType.PRIORITY:
        return this.#onPriority(streamId, payload);
      case FrameType.PUSH_PROMISE:
        throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE though push is disabled");
      default:
        this.#admitControl();
    }
  }

  #onBlock(block: DecodedHeaders | undefined): void {
    if (block !== undefined) this.#onHeaders(block);
  }

  #onHeaders({ streamId, fields, tooLarge, endStream }: DecodedHeaders): void {
    const known = this.#streams.get(streamId);
    if (known !== undefined) return this.#onMoreHeaders(known, fields, tooLarge, endStream);
    if (this.#options.role === "client") return this.#expectKnown(streamId);
    if (!this.#streams.takePeerId(streamId)) {
      this.#expectKnown(streamId);
      if (this.#streams.wasResetByUs(streamId)) return;
      throw new ConnectionError(ErrorCode.STREAM_CLOSED, `HEADERS on closed stream ${streamId}`);
    }
    if (this.#streams.size >= this.#options.limits.streamsMax || this.#goAwayFinal) {
      this.#refuse(streamId, ErrorCode.REFUSED_STREAM);
      return;
    }
    const stream = this.#addStream(streamId);
    if (tooLarge) return this.#streamError(stream, ErrorCode.ENHANCE_YOUR_CALM);
    stream.remoteEnded = endStream;
    this.#listener.onStream(stream, fields, endStream);
  }

  #onMoreHeaders(
    stream: Http2Stream,
    fields: readonly HeaderField[],
    tooLarge: boolean,
    endStream: boolean,
  ): void {
    if (stream.remoteEnded) return this.#streamError(stream, ErrorCode.STREAM_CLOSED);
    if (tooLarge) return this.#streamError(stream, ErrorCode.ENHANCE_YOUR_CALM);
    if (!endStream && this.#options.role === "server") {
      return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR);
    }
    stream.listener?.onHeaders(fields, endStream);
    if (endStream) this.#endRemotely(stream);
  }

  #endRemotely(stream: Http2Stream): void {
    if (stream.closed || stream.remoteEnded) return;
    if (stream.bodyMissing) return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR);
    stream.remoteEnded = true;
    if (stream.localEnded) this.forget(stream);
    stream.listener?.onEnd();
  }

  #onSettings(flags: number, payload: Buffer): void {
    if (flags & Flag.ACK) {
      if (payload.length > 0)
        throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with payload");
      return;
    }
    this.#admitControl();
    this.#settingsSeen = true;
    const before = this.#peer.initialWindowBytes;
    this.#peer = applySettings(this.#peer, payload);
    const delta = this.#peer.initialWindowBytes - before;
    this.#streams.resizeSendWindows(delta);
    this.#writer.control(FrameType.SETTINGS, Flag.ACK, 0);
    if (delta > 0) this.#resumeAll();
  }

  #onWindowUpdate(streamId: number, payload: Buffer): void {
    const bytes = payload.readUInt32BE(0) & 0x7fffffff;
    if (streamId === 0) {
      this.sendWindowBytes += bytes;
      if (bytes === 0) throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0");
      if (this.sendWindowBytes > WINDOW_MAX) {
        throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "connection window overflow");
      }
      this.#resumeAll();
      return;
    }
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return this.#expectKnown(streamId);
    if (bytes === 0) return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR);
    stream.sendWindowBytes += bytes;
    if (stream.sendWindowBytes > WINDOW_MAX)
      return this.#streamError(stream, ErrorCode.FLOW_CONTROL_ERROR);
    stream.resume();
  }

  #onReset(streamId: number, payload: Buffer): void {
    const stream = this.#streams.get(streamId);
    // A client that leaves once it was answered cost what any stream does; rapid resets come before.
    if (stream?.headersSent !== true) this.#budget.spendReset();
    if (stream === undefined) return this.#expectKnown(streamId);
    this.forget(stream);
    stream.listener?.onAbort(payload.readUInt32BE(0));
  }

  #onPing(flags: number, payload: Buffer): void {
    if (flags & Flag.ACK) return this.#onPong();
    this.#admitControl();
    this.#writer.control(FrameType.PING, Flag.ACK, 0, payload);
  }

  #onPong(): void {
    this.#keepalive.onPong();
    if (!this.#goAwaySent || this.#goAwayFinal) return;
    this.#goAwayFinal = true;
    this.#writer.goAway(this.#streams.lastPeerId, ErrorCode.NO_ERROR);
    this.#closeWhenIdle();
  }

  #onGoAway(payload: Buffer): void {
    this.#goAwayReceived = true;
    const lastId = payload.readUInt32BE(0) & 0x7fffffff;
    for (const stream of this.#streams.values()) {
      if (!this.#streams.isOwn(stream.id) || stream.id <= lastId) continue;
      this.forget(stream);
      stream.listener?.onAbort(ErrorCode.REFUSED_STREAM);
    }
    this.#listener.onGoAway();
    if (this.#streams.size === 0) this.#closeWhenIdle();
  }

  #onPriority(streamId: number, payload: Buffer): void {
    this.#admitControl();
    if ((payload.readUInt32BE(0) & 0x7fffffff) === streamId)
      this.#refuse(streamId, ErrorCode.PROTOCOL_ERROR);
  }

  // Errors, flow and endings.

  #expectNoContinuation(): void {
    if (this.#headerBlocks.open) {
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted");
    }
  }

  /** A frame for a stream that was never opened is an error; for one that is gone, it is late. */
  #expectKnown(streamId: number): void {
    if (this.#streams.isIdle(streamId)) {
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, `frame on idle stream ${streamId}`);
    }
  }

  #admitControl(): void {
    this.#budget.spendControl(this.#writer.queuedControlBytes);
  }

  #addStream(id: number): Http2Stream {
    const stream = new Http2Stream(this, id, this.#peer.initialWindowBytes, this.streamWindowBytes);
    this.#streams.add(stream);
    return stream;
  }

  #refuse(streamId: number, code: number): void {
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) return this.#streamError(stream, code);
    this.#budget.spendReset();
    this.#writer.control32(FrameType.RST_STREAM, streamId, code);
  }

  /** The peer broke a rule on one stream. */
  #streamError(stream: Http2Stream, code: number): void {
    this.#budget.spendReset();
    this.resetStream(stream, code);
    stream.listener?.onAbort(code);
  }

  #fail(error: unknown): void {
    if (error instanceof ConnectionError) {
      this.destroy(error.code, `${errorCodeName(error.code)}: ${error.message}`);
    } else throw error;
  }

  #onRoom(): void {
    if (!this.#blockedStreams) return;
    this.#blockedStreams = false;
    this.#resumeAll();
  }

  #resumeAll(): void {
    for (const stream of this.#streams.values()) if (stream.blocked) stream.resume();
  }

  #closeWhenIdle(): void {
    if (this.#streams.size === 0 && !this.closed) this.destroy(ErrorCode.NO_ERROR, "drained");
  }

  #finish(reason: string, code: number = ErrorCode.CANCEL): void {
    if (this.closed) return;
    this.#closeReason = reason;
    this.#keepalive.stop();
    const streams = this.#streams.values();
    this.#streams.clear();
    for (const stream of streams) {
      stream.closed = true;
      stream.listener?.onAbort(code === ErrorCode.NO_ERROR ? ErrorCode.CANCEL : code, reason);
    }
    this.#listener.onClose(reason);
    if (code === ErrorCode.CANCEL) this.#socket.destroy();
  }
}
