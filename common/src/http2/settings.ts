// SETTINGS frames (RFC 9113 §6.5): encoding ours, applying the peer's.

import type { ConnectionOptions } from "./connection-options.ts";
import {
  ConnectionError,
  ErrorCode,
  FRAME_PAYLOAD_BYTES_MAX,
  FRAME_PAYLOAD_BYTES_MIN,
  INITIAL_WINDOW_BYTES,
  Setting,
  WINDOW_MAX,
} from "./protocol.ts";

export interface Settings {
  readonly headerTableBytes: number;
  readonly enablePush: boolean;
  /** undefined: no bound announced. */
  readonly concurrentStreamsMax: number | undefined;
  readonly initialWindowBytes: number;
  readonly frameBytesMax: number;
  readonly headerListBytesMax: number | undefined;
  /** DATA may follow a CONNECT before it is answered, and is kept or dropped as the answer is. */
  readonly earlyConnectData: boolean;
}

/** What holds before the peer's SETTINGS arrive (RFC 9113 §6.5.2). */
export const INITIAL_SETTINGS: Settings = {
  headerTableBytes: 4096,
  enablePush: true,
  concurrentStreamsMax: undefined,
  initialWindowBytes: INITIAL_WINDOW_BYTES,
  frameBytesMax: FRAME_PAYLOAD_BYTES_MIN,
  headerListBytesMax: undefined,
  earlyConnectData: false,
};

const ENTRY_BYTES = 6;

/** Payload of a SETTINGS frame that says where `settings` differ from the initial values. */
export function encodeSettings(settings: Partial<Settings>): Buffer {
  const entries: [number, number][] = [];
  const add = (id: number, value: number | undefined) => {
    if (value !== undefined) entries.push([id, value]);
  };
  add(Setting.HEADER_TABLE_SIZE, settings.headerTableBytes);
  add(Setting.ENABLE_PUSH, settings.enablePush === false ? 0 : undefined);
  add(Setting.MAX_CONCURRENT_STREAMS, settings.concurrentStreamsMax);
  add(Setting.INITIAL_WINDOW_SIZE, settings.initialWindowBytes);
  add(Setting.MAX_FRAME_SIZE, settings.frameBytesMax);
  add(Setting.MAX_HEADER_LIST_SIZE, settings.headerListBytesMax);
  add(Setting.EARLY_CONNECT_DATA, settings.earlyConnectData ? 1 : undefined);
  const payload = Buffer.allocUnsafe(entries.length * ENTRY_BYTES);
  entries.forEach(([id, value], i) => {
    payload.writeUInt16BE(id, i * ENTRY_BYTES);
    payload.writeUInt32BE(value, i * ENTRY_BYTES + 2);
  });
  return payload;
}

/** What an endpoint says first of itself: a server also how many streams it takes. */
export function ownSettings(options: ConnectionOptions): Buffer {
  const { role, limits, streamWindowBytes, frameBytesMax } = options;
  return encodeSettings({
    ...(role === "client" ? { enablePush: false } : { concurrentStreamsMax: limits.streamsMax }),
    initialWindowBytes: streamWindowBytes,
    frameBytesMax,
    headerListBytesMax: limits.headerListBytesMax,
    earlyConnectData: options.earlyConnectData ?? false,
  });
}

/** The peer's settings after a SETTINGS payload. Throws ConnectionError on an illegal value. */
export function applySettings(current: Settings, payload: Buffer): Settings {
  if (payload.length % ENTRY_BYTES !== 0) {
    throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS is not a multiple of 6 bytes");
  }
  let next = current;
  for (let at = 0; at < payload.length; at += ENTRY_BYTES) {
    next = applyOne(next, payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
  }
  return next;
}

function applyOne(settings: Settings, id: number, value: number): Settings {
  switch (id) {
    case Setting.HEADER_TABLE_SIZE:
      return { ...settings, headerTableBytes: value };
    case Setting.ENABLE_PUSH:
      if (value > 1) throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, `ENABLE_PUSH ${value}`);
      return { ...settings, enablePush: value === 1 };
    case Setting.MAX_CONCURRENT_STREAMS:
      return { ...settings, concurrentStreamsMax: value };
    case Setting.INITIAL_WINDOW_SIZE:
      if (value > WINDOW_MAX) {
        throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, `INITIAL_WINDOW_SIZE ${value}`);
      }
      return { ...settings, initialWindowBytes: value };
    case Setting.MAX_FRAME_SIZE:
      if (value < FRAME_PAYLOAD_BYTES_MIN || value > FRAME_PAYLOAD_BYTES_MAX) {
        throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, `MAX_FRAME_SIZE ${value}`);
      }
      return { ...settings, frameBytesMax: value };
    case Setting.MAX_HEADER_LIST_SIZE:
      return { ...settings, headerListBytesMax: value };
    case Setting.EARLY_CONNECT_DATA:
      return { ...settings, earlyConnectData: value === 1 };
    default:
      return settings;
  }
}
