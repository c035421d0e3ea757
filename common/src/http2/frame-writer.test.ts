// What is written without a copy is the same on the wire, and in the same order.

import { expect, it } from "vitest";
import type { ByteSocket } from "../net/byte-socket.ts";
import { HEADROOM_BYTES, readBuffer, SCRATCH_BYTES } from "../net/scratch.ts";
import { FrameWriter } from "./frame-writer.ts";
import { FRAME_HEADER_BYTES, FrameType } from "./protocol.ts";

const STREAM = 5;

interface Frame {
  readonly type: number;
  readonly stream: number;
  readonly payload: Buffer;
}

/** A writer on a socket that takes `roomBytes`, then says that it is full. */
function setUp(roomBytes = Infinity) {
  const written: Buffer[] = [];
  let room = roomBytes;
  let rooms = 0;
  const socket = {
    write: (bytes: Buffer) => {
      written.push(Buffer.from(bytes));
      room -= bytes.length;
      return room > 0;
    },
  } as unknown as ByteSocket;
  const writer = new FrameWriter(
    socket,
    () => 1,
    () => rooms++,
  );
  const drain = () => {
    room = Infinity;
    writer.onWritable();
  };
  return {
    writer,
    written,
    drain,
    frames: () => parse(Buffer.concat(written)),
    rooms: () => rooms,
  };
}

function parse(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + FRAME_HEADER_BYTES + bytes.readUIntBE(at, 3);
    const payload = bytes.subarray(at + FRAME_HEADER_BYTES, end);
    frames.push({ type: bytes[at + 3]!, stream: bytes.readUInt32BE(at + 5), payload });
    at = end;
  }
  return frames;
}

/** As if just read. */
function read(length: number, value: number): Buffer {
  return readBuffer.subarray(0, length).fill(value);
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

it("writes bulk at once, from where it was read", () => {
  const { writer, written, frames } = setUp();
  expect(writer.data(STREAM, read(100_000, 1))).toBe(true);
  expect(written).toHaveLength(1);
  const [frame] = frames();
  expect(frame).toMatchObject({ type: FrameType.DATA, stream: STREAM });
  expect(frame!.payload).toEqual(Buffer.alloc(100_000, 1));
});

it("takes the whole of what one read can bring", () => {
  const { writer, frames } = setUp();
  writer.data(STREAM, read(readBuffer.length, 2));
  expect(frames()).toHaveLength(1);
  expect(frames()[0]!.payload.equals(Buffer.alloc(readBuffer.length, 2))).toBe(true);
  expect(HEADROOM_BYTES).toBeGreaterThanOrEqual(FRAME_HEADER_BYTES);
});

it("keeps the order: what waits goes first, and bulk behind it", async () => {
  const { writer, written, frames } = setUp();
  writer.control32(FrameType.WINDOW_UPDATE, STREAM, 7);
  writer.data(STREAM, read(50_000, 3));
  writer.data(STREAM, read(100, 4));
  expect(written).toHaveLength(0);
  await turn();
  expect(frames().map(({ type }) => type)).toEqual([
    FrameType.WINDOW_UPDATE,
    FrameType.DATA,
    FrameType.DATA,
  ]);
  expect(frames()[1]!.payload).toEqual(Buffer.alloc(50_000, 3));
  expect(frames()[2]!.payload).toEqual(Buffer.alloc(100, 4));
});

it("does not take a part of what was read for its beginning", async () => {
  const { writer, frames } = setUp();
  const chunk = read(90_000, 5);
  chunk.fill(6, 0, 40_000);
  writer.data(STREAM, chunk.subarray(0, 40_000));
  writer.data(STREAM, chunk.subarray(40_000));
  await turn();
  expect(frames().map(({ payload }) => payload)).toEqual([
    Buffer.alloc(40_000, 6),
    Buffer.alloc(50_000, 5),
  ]);
});

it("waits behind a socket that is full, and says when to stop and when to go on", () => {
  const { writer, written, drain, frames, rooms } = setUp(1);
  expect(writer.data(STREAM, read(100_000, 7))).toBe(true);
  let value = 8;
  while (writer.data(STREAM, read(100_000, value))) value++;
  expect(value).toBeLessThanOrEqual(8 + Math.ceil(SCRATCH_BYTES / 100_000));
  expect(written).toHaveLength(1);
  expect(rooms()).toBe(0);
  drain();
  expect(rooms()).toBe(1);
  expect(frames().map(({ payload }) => payload[0])).toEqual(
    Array.from({ length: value - 6 }, (_, i) => 7 + i),
  );
});
