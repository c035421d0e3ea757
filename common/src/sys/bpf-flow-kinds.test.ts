import { describe, expect, it } from "vitest";
import { KindNumbers, KINDS_MAX } from "./bpf-flow-kinds.ts";
import { STRUCTS } from "./bpf-layout.gen.ts";

const { endedFlow, flow, flowKey } = STRUCTS;
/** Places in a record, and whether connections that differ there are of different kinds. */
const FIELDS = [
  ["the calling pod", endedFlow.flow + flow.netns, true],
  ["the calling pod's upper half", endedFlow.flow + flow.netns + 4, true],
  ["the called slot", endedFlow.flow + flow.slot, true],
  ["the service's address", endedFlow.flow + flow.service + 12, true],
  ["the service's port", endedFlow.flow + flow.service + 16, true],
  ["the destination's address", endedFlow.key + flowKey.destination + 12, true],
  ["the destination's port", endedFlow.key + flowKey.destinationPort, true],
  ["the source's port", endedFlow.key + flowKey.sourcePort, false],
  ["the source's address", endedFlow.key + flowKey.source + 12, false],
  ["the socket", endedFlow.flow + flow.cookie, false],
  ["the time", endedFlow.flow + flow.startedNs, false],
  ["the generation", endedFlow.flow + flow.generation, false],
  ["what it carried", endedFlow.received, false],
] as const;

/** A record at the 8th word, with one byte set. */
function record(place = 0, byte = 0): Uint32Array {
  const bytes = Buffer.alloc(32 + endedFlow.bytes);
  bytes[32 + place] = byte;
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

describe("kinds of connections", () => {
  it.each(FIELDS)("differ by %s or not", (_, place, differ) => {
    const kinds = new KindNumbers();
    const first = kinds.of(record(), 8);
    expect(kinds.of(record(place, 1), 8) !== first).toBe(differ);
    expect(kinds.of(record(), 8)).toBe(first);
  });

  it("are remembered up to a bound; then they get new numbers, and none gets another's", () => {
    const kinds = new KindNumbers();
    const [port] = [endedFlow.flow + flow.service + 16];
    const numbered = (kind: number) => {
      const words = record();
      words[8 + port / 4] = kind;
      return kinds.of(words, 8);
    };
    const numbers = Array.from({ length: KINDS_MAX }, (_, kind) => numbered(kind));
    expect(numbered(0)).toBe(numbers[0]);
    const after = Array.from({ length: KINDS_MAX }, (_, i) => numbered(KINDS_MAX - i));
    expect(new Set([...numbers, ...after]).size).toBe(2 * KINDS_MAX);
  });
});
