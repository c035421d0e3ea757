import { describe, expect, it } from "vitest";
import { checkFrame } from "./frame-rules.ts";
import { ConnectionError, FrameType, StreamError } from "./protocol.ts";

describe("a frame", () => {
  it.each([
    ["HEADERS", 1, 0],
    ["PRIORITY", 1, 5],
    ["RST_STREAM", 1, 4],
    ["SETTINGS", 0, 6],
    ["PING", 0, 8],
    ["GOAWAY", 0, 8],
    ["GOAWAY", 0, 9],
    ["WINDOW_UPDATE", 0, 4],
    ["WINDOW_UPDATE", 1, 4],
    ["CONTINUATION", 1, 0],
  ] as const)("%s on stream %i with %i bytes is in order", (name, streamId, bytes) => {
    expect(() => checkFrame(FrameType[name], streamId, bytes)).not.toThrow();
  });

  it.each([
    ["HEADERS", 0, 1, ConnectionError],
    ["PRIORITY", 0, 5, ConnectionError],
    ["PRIORITY", 1, 4, StreamError],
    ["PRIORITY", 1, 6, StreamError],
    ["RST_STREAM", 0, 4, ConnectionError],
    ["RST_STREAM", 1, 3, ConnectionError],
    ["RST_STREAM", 1, 5, ConnectionError],
    ["SETTINGS", 1, 6, ConnectionError],
    ["PING", 1, 8, ConnectionError],
    ["PING", 0, 7, ConnectionError],
    ["PING", 0, 9, ConnectionError],
    ["GOAWAY", 1, 8, ConnectionError],
    ["GOAWAY", 0, 7, ConnectionError],
    ["WINDOW_UPDATE", 1, 3, ConnectionError],
    ["WINDOW_UPDATE", 1, 5, ConnectionError],
    ["CONTINUATION", 0, 1, ConnectionError],
  ] as const)("%s on stream %i with %i bytes is refused", (name, streamId, bytes, error) => {
    expect(() => checkFrame(FrameType[name], streamId, bytes)).toThrow(error);
  });
});
