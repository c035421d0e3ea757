import { describe, expect, it } from "vitest";
import { bytePair } from "./byte-pair.ts";
import type { ByteSocket } from "./byte-socket.ts";

/** What an end hears, in order. */
function recorded(socket: ByteSocket): string[] {
  const heard: string[] = [];
  socket.handler = {
    onBytes: (bytes) => void heard.push(bytes.toString()),
    onEnd: () => void heard.push("end"),
    onWritable: () => void heard.push("writable"),
    onClose: () => void heard.push("close"),
  };
  return heard;
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

describe("a pair in memory", () => {
  it("carries bytes and ends both ways, and closes when both have ended", async () => {
    const [a, b] = bytePair();
    const [atA, atB] = [recorded(a), recorded(b)];
    a.resume();
    b.resume();
    a.write(Buffer.from("there"));
    b.write(Buffer.from("back"));
    a.end();
    await settled();
    expect([atA, atB]).toEqual([["back"], ["there", "end"]]);
    b.end();
    await settled();
    expect([atA, atB]).toEqual([
      ["back", "end", "close"],
      ["there", "end", "close"],
    ]);
  });

  it("lets the writer's buffer go at once, and never calls within the writer's call", async () => {
    const [a, b] = bytePair();
    const heard = recorded(b);
    b.resume();
    const bytes = Buffer.from("before");
    a.write(bytes);
    bytes.fill("x");
    expect(heard).toEqual([]);
    await settled();
    expect(heard).toEqual(["before"]);
  });

  it("keeps what a paused reader does not take, and tells the writer when there is room", async () => {
    const [a, b] = bytePair();
    const [atA, atB] = [recorded(a), recorded(b)];
    const large = Buffer.alloc(256 * 1024 - 1, "x");
    expect(a.write(large)).toBe(true);
    expect(a.write(Buffer.from("y"))).toBe(false);
    await settled();
    expect([atA, atB]).toEqual([[], []]);
    b.resume();
    await settled();
    expect(atA).toEqual(["writable"]);
    expect(atB).toEqual([large.toString(), "y"]);
  });

  it("stops in the middle for a reader that pauses", async () => {
    const [a, b] = bytePair();
    const heard = recorded(b);
    const handler = b.handler!;
    const onBytes = (bytes: Buffer) => {
      handler.onBytes(bytes);
      b.pause();
    };
    b.handler = { ...handler, onBytes };
    b.resume();
    a.write(Buffer.from("1"));
    a.write(Buffer.from("2"));
    await settled();
    expect(heard).toEqual(["1"]);
    b.resume();
    await settled();
    expect(heard).toEqual(["1", "2"]);
  });

  it("delivers what came before a close that waits for it", async () => {
    const [a, b] = bytePair();
    const heard = recorded(b);
    a.write(Buffer.from("last"));
    a.endAndClose();
    await settled();
    expect(a.destroyed).toBe(false);
    b.resume();
    await settled();
    expect(heard).toEqual(["last", "end", "close"]);
    expect(a.destroyed).toBe(true);
  });

  it.each(["destroy", "reset"] as const)("%s closes both ends at once", async (how) => {
    const [a, b] = bytePair();
    const [atA, atB] = [recorded(a), recorded(b)];
    b.resume();
    a.write(Buffer.from("lost"));
    a[how]();
    expect([a.destroyed, b.destroyed]).toEqual([true, true]);
    await settled();
    expect([atA, atB]).toEqual([["close"], ["close"]]);
    expect(a.write(Buffer.from("more"))).toBe(true);
  });
});
