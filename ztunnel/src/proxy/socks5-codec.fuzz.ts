// SOCKS greetings and requests, from any application.

import { assert } from "@ambit/common/process/assert.ts";
import { parseGreeting, parseSocksRequest } from "./socks5-codec.ts";

export const name = "socks5";

export function corpus(): Uint8Array[] {
  return [
    Buffer.of(5, 1, 0),
    Buffer.of(5, 1, 0, 1, 10, 0, 0, 1, 0, 80),
    Buffer.concat([Buffer.of(5, 1, 0, 3, 11), Buffer.from("web.example"), Buffer.of(0, 80)]),
    Buffer.of(5, 1, 0, 4, ...new Array<number>(16).fill(1), 0, 80),
  ];
}

export function fuzz(data: Uint8Array): void {
  for (const parse of [parseGreeting, parseSocksRequest]) {
    const parsed = parse(Buffer.from(data));
    if (parsed.kind === "parsed") {
      assert(parsed.length <= data.length, "no more is understood than was sent");
    }
  }
}
