// Any bytes as frames: slices never exceed what was announced, and errors are connection errors.

import { assert } from "../process/assert.ts";
import { FrameParser } from "./frame-parser.ts";
import { ConnectionError } from "./protocol.ts";

export const name = "http2-frames";

export function corpus(): Uint8Array[] {
  return [
    Buffer.from("0000050009000000010261620000", "hex"),
    Buffer.from("000008060000000000deadbeefdeadbeef", "hex"),
  ];
}

export function fuzz(data: Uint8Array): void {
  let announced = 0;
  let seen = 0;
  const parser = new FrameParser(
    {
      onDataStart: (_, length) => {
        announced = length;
        seen = 0;
      },
      onData: (slice) => (seen += slice.length),
      onDataEnd: () => assert(seen <= announced, "no more content than announced"),
      onFrame: (_type, _flags, _id, payload) =>
        assert(payload.length <= 1024, "payload within the limit"),
    },
    1024,
  );
  try {
    for (let at = 0; at < data.length; at += 7) parser.push(Buffer.from(data.subarray(at, at + 7)));
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
  }
}
