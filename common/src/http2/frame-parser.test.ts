import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type FrameHandler, FrameParser } from "./frame-parser.ts";
import { FrameType } from "./protocol.ts";

function frame(type: number, flags: number, streamId: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header[3] = type;
  header[4] = flags;
  header.writeUInt32BE(streamId, 5);
  return Buffer.concat([header, payload]);
}

/** Records frames in a form that does not depend on how reads cut them. */
class Recorder implements FrameHandler {
  readonly events: string[] = [];
  #data = "";
  #streamId = 0;
  onDataStart(streamId: number, length: number) {
    this.events.push(`data ${streamId} ${length}`);
    this.#data = "";
    this.#streamId = streamId;
  }
  onData(slice: Buffer) {
    this.#data += slice.toString("hex");
  }
  onDataEnd(endStream: boolean) {
    this.events.push(`end ${this.#streamId} ${endStream} ${this.#data}`);
  }
  onFrame(type: number, flags: number, streamId: number, payload: Buffer) {
    this.events.push(`frame ${type} ${flags} ${streamId} ${payload.toString("hex")}`);
  }
}

function parse(chunks: Buffer[]): string[] {
  const recorder = new Recorder();
  const parser = new FrameParser(recorder, 16_384);
  for (const chunk of chunks) parser.push(chunk);
  return recorder.events;
}

describe("the frame parser", () => {
  it("removes padding from DATA but counts it", () => {
    const payload = Buffer.from([2, 0x61, 0x62, 0, 0]);
    expect(parse([frame(FrameType.DATA, 0x9, 1, payload)])).toEqual([
      "data 1 5",
      "end 1 true 6162",
    ]);
  });

  it("takes a frame of the maximum size and refuses one byte more", () => {
    expect(parse([frame(FrameType.PING, 0, 0, Buffer.alloc(16_384))])).toHaveLength(1);
    expect(() => parse([frame(FrameType.PING, 0, 0, Buffer.alloc(16_385))])).toThrow("16385 bytes");
  });

  it("refuses padding longer than the frame", () => {
    expect(() => parse([frame(FrameType.DATA, 0x8, 1, Buffer.from([3, 0, 0]))])).toThrow("padding");
  });

  it("sees the same frames however the bytes are cut", () => {
    const anyFrame = fc
      .record({
        type: fc.integer({ min: 0, max: 12 }),
        padded: fc.boolean(),
        end: fc.boolean(),
        id: fc.nat(1000),
        payload: fc.uint8Array({ maxLength: 60 }),
      })
      .map(({ type, padded, end, id, payload }) => {
        if (type !== FrameType.DATA) return frame(type, 4, id, Buffer.from(payload));
        const body = padded ? [3, ...payload, 0, 0, 0] : [...payload];
        return frame(type, (padded ? 8 : 0) | (end ? 1 : 0), id, Buffer.from(body));
      });
    fc.assert(
      fc.property(
        fc.array(anyFrame, { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
        (frames, cuts) => {
          const bytes = Buffer.concat(frames);
          const chunks: Buffer[] = [];
          for (let at = 0, i = 0; at < bytes.length; at += cuts[i++ % cuts.length]!) {
            chunks.push(bytes.subarray(at, at + cuts[i % cuts.length]!));
          }
          const exact: Buffer[] = [];
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const size = cuts[i % cuts.length]!;
            exact.push(bytes.subarray(at, at + size));
            at += size;
          }
          expect(parse(exact)).toEqual(parse([bytes]));
        },
      ),
    );
  });
});
