// Which frames may come on which stream and how long their payload is (RFC 9113 §6), as one table.
// What a breach costs depends on the frame: mostly the connection, for PRIORITY only its stream.

import { ConnectionError, ErrorCode, FrameType, StreamError } from "./protocol.ts";

interface FrameRule {
  readonly name: string;
  /** "none": only on the connection (stream 0). "some": only on a stream. */
  readonly stream: "none" | "some" | "any";
  readonly bytesMin?: number;
  readonly bytesMax?: number;
  /** A wrong length ends only the stream. */
  readonly sparesConnection?: boolean;
}

const RULES: Readonly<Record<number, FrameRule>> = {
  [FrameType.HEADERS]: { name: "HEADERS", stream: "some" },
  [FrameType.PRIORITY]: {
    name: "PRIORITY",
    stream: "some",
    bytesMin: 5,
    bytesMax: 5,
    sparesConnection: true,
  },
  [FrameType.RST_STREAM]: { name: "RST_STREAM", stream: "some", bytesMin: 4, bytesMax: 4 },
  [FrameType.SETTINGS]: { name: "SETTINGS", stream: "none" },
  [FrameType.PING]: { name: "PING", stream: "none", bytesMin: 8, bytesMax: 8 },
  [FrameType.GOAWAY]: { name: "GOAWAY", stream: "none", bytesMin: 8 },
  [FrameType.WINDOW_UPDATE]: { name: "WINDOW_UPDATE", stream: "any", bytesMin: 4, bytesMax: 4 },
  [FrameType.CONTINUATION]: { name: "CONTINUATION", stream: "some" },
};

/** Throws ConnectionError or StreamError when a frame is on the wrong stream or has a wrong length. */
export function checkFrame(type: number, streamId: number, bytes: number): void {
  const rule = RULES[type];
  if (rule === undefined) return;
  const { name, stream, bytesMin = 0, bytesMax = Infinity } = rule;
  if (stream === "none" && streamId !== 0) {
    throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, `${name} on a stream`);
  }
  if (stream === "some" && streamId === 0) {
    throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, `${name} on stream 0`);
  }
  if (bytes >= bytesMin && bytes <= bytesMax) return;
  const message = `${name} of ${bytes} bytes`;
  if (rule.sparesConnection) throw new StreamError(streamId, ErrorCode.FRAME_SIZE_ERROR, message);
  throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, message);
}
