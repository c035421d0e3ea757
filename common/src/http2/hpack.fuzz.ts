// Any bytes either decode within the bounds or fail with COMPRESSION_ERROR.

import { assert } from "../process/assert.ts";
import { HpackDecoder } from "./hpack-decoder.ts";
import { hpackEncode } from "./hpack-encoder.ts";
import { ConnectionError } from "./protocol.ts";

export const name = "hpack";

const LIST_BYTES_MAX = 2000;

export function corpus(): Uint8Array[] {
  return [
    Buffer.from("828684418cf1e3c2e5f23a6ba0ab90f4ff", "hex"),
    hpackEncode([
      { name: ":method", value: "CONNECT" },
      { name: "baggage", value: "k8s.pod.name=a" },
    ]),
  ];
}

export function fuzz(data: Uint8Array): void {
  const decoder = new HpackDecoder(256, LIST_BYTES_MAX);
  try {
    const { fields } = decoder.decode(Buffer.from(data));
    const bytes = fields.reduce(
      (sum, { name: key, value }) => sum + key.length + value.length + 32,
      0,
    );
    assert(bytes <= LIST_BYTES_MAX, "the list stays within its bound");
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
  }
}
