// Any text as a log line of ztunnel's: an access line, or none.

import { assert } from "@ambit/common/process/assert.ts";
import { parseAccessLine } from "./access-line.ts";

export const name = "access-lines";

export function corpus(): Uint8Array[] {
  return [
    't\tinfo\taccess\tconnection complete\tsrc.addr=1.2.3.4:5 src.workload="a" direction="outbound"',
    't\twarn\taccess\tconnection failed\terror="a \\"b\\" c" reason=UNKNOWN_SOURCE',
  ].map((text) => Buffer.from(text));
}

export function fuzz(data: Uint8Array): void {
  const line = parseAccessLine(Buffer.from(data).toString());
  if (line !== undefined) assert(line.source !== "", "a connection has a source");
}
